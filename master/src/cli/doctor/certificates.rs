//! Certificates: that the CA is there and its pin, and until when the operator's own is good.

use certs::{ca_file::pin_of_file, web::OwnFiles};
use proto::check::Check;

use crate::{clock::unix_ms, config::Config};

const DAY_MS: i64 = 86_400_000;

pub(super) fn examine(config: &Config) -> Vec<Check> {
    let mut checks = vec![authority(config)];
    if let Some(cert) = &config.public.cert_file {
        let key = config.public.key_file.clone().unwrap_or_else(|| cert.clone());
        checks.push(own(&OwnFiles { cert: cert.clone(), key }));
    }
    checks
}

fn authority(config: &Config) -> Check {
    const NAME: &str = "CA";
    let (key, certificate) = (config.data_dir.join("ca/ca.key"), config.data_dir.join("ca/ca.crt"));
    match std::fs::read(&certificate) {
        Err(_) if !key.exists() => Check::warn(NAME, "there is none yet", "none: it is made at the first start"),
        Err(_) => Check::ok(NAME, "its key is there; its certificate is made again at the next start"),
        Ok(_) if !key.exists() => {
            let fix = "restore ca/ca.key from a backup: without it no certificate is issued or renewed";
            Check::fail(NAME, format!("{} is gone", key.display()), fix)
        }
        Ok(bytes) => match pin_of_file(&bytes) {
            Ok(pin) => Check::ok(NAME, format!("its pin is {pin}")),
            Err(error) => Check::fail(
                NAME,
                format!("{}: {error}", certificate.display()),
                "move it away: it is made again from its key",
            ),
        },
    }
}

fn own(files: &OwnFiles) -> Check {
    const NAME: &str = "certificate";
    let shown = files.cert.display();
    let not_after_ms = match files.not_after_ms() {
        Ok(not_after_ms) => not_after_ms,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            let fix = "correct public.cert_file and public.key_file, PEM, readable by the master's user";
            return Check::fail(NAME, format!("{error}{cause}"), fix);
        }
    };
    let days = (not_after_ms - unix_ms()).div_euclid(DAY_MS);
    let seen = format!("{shown} is good for {days} days");
    let fix = "renew it, and put it in the same place: the master takes it within seconds";
    match days {
        ..0 => Check::fail(NAME, format!("{shown} ran out {} days ago", -days), fix),
        0..14 => Check::warn(NAME, seen, fix),
        14.. => Check::ok(NAME, seen),
    }
}
