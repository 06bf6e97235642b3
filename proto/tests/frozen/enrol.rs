//! Enrolment and renewal.

use proto::{
    code::Code,
    control::Refusal,
    enrol::{EnrolReply, EnrolRequest, Issued},
};

use super::frozen;

#[test]
fn enrol_request() {
    frozen(
        "enrol_request",
        "enrol",
        EnrolRequest::Enrol { agent_id: "home-1".parse().unwrap(), secret: "s3cret".into(), csr_der: vec![0x30, 0x00] },
        r#"
        00                                                  # Enrol
        06 "home-1"                                         # agent_id
        06 "s3cret"                                         # secret
        02 3000                                             # csr_der: 2 bytes
        "#,
    );
    frozen(
        "enrol_request",
        "renew",
        EnrolRequest::Renew { csr_der: vec![0x30, 0x00] },
        "01 02 3000 # Renew: csr_der, 2 bytes",
    );
    frozen(
        "enrol_request",
        "with_key",
        EnrolRequest::EnrolWithKey { name: "home-1".parse().unwrap(), key: "k3y".into(), csr_der: vec![0x30, 0x00] },
        r#"
        02                                                  # EnrolWithKey
        06 "home-1"                                         # name
        03 "k3y"                                            # key
        02 3000                                             # csr_der: 2 bytes
        "#,
    );
}

#[test]
fn enrol_reply() {
    let issued =
        Issued { certificate_der: vec![0x30, 0x01, 0xff], ca_der: vec![0x30, 0x00], master_time_ms: 1_700_000_000_000 };
    frozen(
        "enrol_reply",
        "issued",
        EnrolReply::Issued(issued),
        r#"
        00                                                  # Issued
        03 3001ff                                           # certificate_der: 3 bytes
        02 3000                                             # ca_der: 2 bytes
        80a0abfef962                                        # master_time_ms: 1,700,000,000,000, zigzag
        "#,
    );
    frozen(
        "enrol_reply",
        "refused",
        EnrolReply::Refused(Refusal { code: Code::ENROL_REFUSED, message: "no".into(), retry_after_ms: 5_000 }),
        r#"
        01                                                  # Refused
        43                                                  # code: 0x43 enrol_refused
        02 "no"                                             # message
        8827                                                # retry_after_ms: 5,000
        "#,
    );
    frozen(
        "enrol_reply",
        "waits",
        EnrolReply::Waits { message: "no".into(), retry_after_ms: 5_000 },
        r#"
        02                                                  # Waits
        02 "no"                                             # message
        8827                                                # retry_after_ms: 5,000
        "#,
    );
}
