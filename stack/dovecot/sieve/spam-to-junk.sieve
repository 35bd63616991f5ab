require ["fileinto", "mailbox"];
# rspamd says so in a header of its own; a sender's header of that name has been taken out by it.
if header :is "X-Spam" "Yes" {
    fileinto :create "Junk";
    stop;
}
