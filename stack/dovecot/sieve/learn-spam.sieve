require ["vnd.dovecot.pipe", "copy", "imapsieve"];
pipe :copy :try "learn" ["spam"];
