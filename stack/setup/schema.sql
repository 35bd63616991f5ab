-- The mail server's directory: who has mail here.  One statement a line block; each is safe to run again.
CREATE TABLE IF NOT EXISTS domain (
    name VARCHAR(253) NOT NULL PRIMARY KEY,
    active BOOLEAN NOT NULL DEFAULT TRUE
) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci;

CREATE TABLE IF NOT EXISTS mailbox (
    address VARCHAR(320) NOT NULL PRIMARY KEY,
    domain VARCHAR(253) NOT NULL,
    password VARCHAR(255) NOT NULL COMMENT '{BLF-CRYPT}..., as Dovecot and SOGo read it',
    name VARCHAR(255) NOT NULL DEFAULT '',
    quota_bytes BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT '0: none',
    active BOOLEAN NOT NULL DEFAULT TRUE,
    FOREIGN KEY (domain) REFERENCES domain (name)
) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci;

CREATE TABLE IF NOT EXISTS alias (
    address VARCHAR(320) NOT NULL COMMENT '@example.org: everything in the domain that has no mailbox and no alias',
    goto VARCHAR(320) NOT NULL,
    domain VARCHAR(253) NOT NULL,
    active BOOLEAN NOT NULL DEFAULT TRUE,
    PRIMARY KEY (address, goto),
    FOREIGN KEY (domain) REFERENCES domain (name)
) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci;

CREATE OR REPLACE VIEW sogo_user AS
    SELECT m.address AS c_uid, m.address AS c_name, m.password AS c_password,
           IF(m.name = '', m.address, m.name) AS c_cn, m.address AS mail
    FROM mailbox m JOIN domain d ON d.name = m.domain
    WHERE m.active AND d.active;
