require ["vnd.dovecot.pipe", "copy", "imapsieve", "environment"];
# What goes from Junk into the bin is no ham.
if environment :is "imap.mailbox" "Trash" {
    stop;
}
pipe :copy :try "learn" ["ham"];
