//! Codes of an authenticator app (RFC 6238, six digits, 30 s, one step of tolerance either way). Which steps were taken
//! before is the store's business.

use totp_rs::{Algorithm, Builder, Secret, Totp};

/// Bytes of a secret, as RFC 4226 recommends.
const SECRET_BYTES: usize = 20;
const ISSUER: &str = "Landline";
const STEP_S: u64 = 30;
/// Steps before and after the present one: clocks of phones differ.
const SKEW: u16 = 1;

/// A new secret in base32.
pub(super) fn new_secret() -> String {
    Secret::new_stack(rand::random::<[u8; SECRET_BYTES]>()).to_base32()
}

/// What authenticator apps read from a picture.
pub(super) fn uri(secret: &str, name: &str) -> Option<String> {
    totp(secret, name)?.to_url().ok()
}

/// The time step this code belongs to, if it is right within the tolerance.
pub(super) fn step_of(secret: &str, code: &str, now_ms: i64) -> Option<i64> {
    let now_s = u64::try_from(now_ms / 1000).ok()?;
    let digits: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    let six = digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_digit());
    let step = totp(secret, "x")?.check(&digits, now_s).filter(|_| six)?;
    i64::try_from(step).ok()
}

fn totp(secret: &str, name: &str) -> Option<Totp> {
    let builder = Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(6)
        .with_skew(SKEW)
        .with_step_duration(STEP_S)
        .with_issuer(Some(ISSUER))
        .with_account_name(name)
        .with_secret(Secret::try_from_base32(secret).ok()?);
    builder.build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238's SHA-1 secret; its codes there have eight digits, of which these are the last six.
    const RFC: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

    #[test]
    fn the_codes_are_those_of_the_standard() {
        for (time_s, code) in [(59, "287082"), (1_111_111_109, "081804"), (20_000_000_000, "353130")] {
            assert_eq!(step_of(RFC, code, time_s * 1000), Some(time_s / 30), "{time_s}");
        }
    }

    #[test]
    fn one_step_either_way_is_tolerated_and_no_more() {
        for (offset_s, known) in [(-61, false), (-30, true), (0, true), (30, true), (61, false)] {
            assert_eq!(step_of(RFC, "287082", (59 + offset_s) * 1000).is_some(), known, "{offset_s}");
        }
        for bad in ["", "287083", "28708", "2870820", "+87082", "287O82", "２８７０８２"] {
            assert_eq!(step_of(RFC, bad, 59_000), None, "{bad}");
        }
        assert_eq!(step_of(RFC, "287 082", 59_000), Some(1), "as apps show it");
    }

    #[test]
    fn a_secret_is_new_and_its_uri_names_us() {
        let (one, two) = (new_secret(), new_secret());
        assert!(one.len() == 32 && one != two);
        let uri = uri(&one, "ada").unwrap();
        assert!(uri.starts_with("otpauth://totp/Landline:ada?") && uri.contains(&one), "{uri}");
    }
}
