//! Enrolment and renewal against a real master: one secret, one certificate; a lost reply strands nobody; what is refused
//! is refused in the same words.

use std::{collections::BTreeSet, time::Duration};

use landline_tests::{
    agent::{ALLOW_ALL, Agent},
    master::Master,
    puppet::{Puppet, enrol, foreign_pin, hello, new_key, renew, token},
    wait::eventually,
};
use proto::{code::Code, control::HelloReply, enrol::EnrolReply};
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::json;

fn code_of(reply: &EnrolReply) -> Option<Code> {
    match reply {
        EnrolReply::Issued(_) | EnrolReply::Waits { .. } => None,
        EnrolReply::Refused(refusal) => Some(refusal.code),
    }
}

async fn two_hundred_with_one_token(top: &str) {
    const RACERS: usize = 200;
    let master = Master::start_with(top, "").await;
    let token = token(&master.add("raced").await);
    let folder = tempfile::tempdir().unwrap();
    let mut racers = tokio::task::JoinSet::new();
    for number in 0..RACERS {
        let key = new_key(folder.path(), &number.to_string());
        let token = token.clone();
        racers.spawn(async move {
            let secret = token.secret.expose_secret().to_owned();
            // A master under this much load may let a handshake time out: that racer comes again.
            for _ in 0..20 {
                if let Ok(reply) = enrol(&token, &key, &secret).await {
                    return reply;
                }
            }
            panic!("racer {number} never got an answer")
        });
    }
    let replies = racers.join_all().await;
    let issued = replies.iter().filter(|reply| code_of(reply).is_none()).count();
    assert_eq!(issued, 1, "certificates issued");
    let errors: BTreeSet<_> = replies
        .iter()
        .filter_map(|reply| match reply {
            EnrolReply::Issued(_) | EnrolReply::Waits { .. } => None,
            EnrolReply::Refused(refusal) => Some((refusal.code, refusal.message.clone())),
        })
        .collect();
    assert_eq!(errors.len(), 1, "199 equal errors: {errors:?}");
    assert_eq!(errors.first().unwrap().0, Code::ENROL_REFUSED);
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_two_hundred_race_for_one_token_on_sqlite() {
    two_hundred_with_one_token("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_two_hundred_race_for_one_token_on_postgresql() {
    let url = std::env::var("LANDLINE_TEST_POSTGRES_URL")
        .expect("LANDLINE_TEST_POSTGRES_URL is set by `make test`; or: deploy/dev/postgres.sh start DIR");
    let database = landline_tests::postgres::fresh_database(&url);
    two_hundred_with_one_token(&format!("database = {database:?}")).await;
}

/// The reply is lost on the way: the same key asks again and gets the same certificate; another key does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_strands_nobody() {
    let master = Master::start().await;
    let token = token(&master.add("lost").await);
    let folder = tempfile::tempdir().unwrap();
    let key = new_key(folder.path(), "key");
    let secret = token.secret.expose_secret();
    let first = enrol(&token, &key, secret).await.unwrap();
    let EnrolReply::Issued(first) = first else { panic!("{first:?}") };
    let again = enrol(&token, &key, secret).await.unwrap();
    let EnrolReply::Issued(again) = again else { panic!("{again:?}") };
    assert_eq!(first.certificate_der, again.certificate_der);
    let thief = enrol(&token, &new_key(folder.path(), "thief"), secret).await.unwrap();
    assert_eq!(code_of(&thief), Some(Code::ENROL_REFUSED));
}

/// Wrong secret, unknown id, used and expired secrets, suspended agents; and the way out for the owner.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_tell_what_to_do_and_nothing_else() {
    let master = Master::start_with("[enrolment]\nsecret_ttl_s = 60", "").await;
    let folder = tempfile::tempdir().unwrap();
    let good = token(&master.add("known").await);
    let key = new_key(folder.path(), "key");
    let wrong = enrol(&good, &key, "wrong").await.unwrap();
    let mut unknown = good.clone();
    unknown.agent_id = "nobody".parse().unwrap();
    let unknown = enrol(&unknown, &key, good.secret.expose_secret()).await.unwrap();
    assert_eq!(wrong, unknown, "an unknown id and a wrong secret must look the same");
    assert_eq!(code_of(&wrong), Some(Code::ENROL_REFUSED));

    // A new secret makes the old one worthless.
    let renewed = master.api().post("/agents/known/secret", json!({})).await;
    let old = enrol(&good, &key, good.secret.expose_secret()).await.unwrap();
    assert_eq!(code_of(&old), Some(Code::ENROL_REFUSED));
    let fresh = token(&renewed);
    let taken = enrol(&fresh, &key, fresh.secret.expose_secret()).await.unwrap();
    assert_eq!(code_of(&taken), None, "{taken:?}");
}

/// The wrong pin: no byte of the secret leaves the agent, and it says what is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_pin_stops_the_agent_before_its_secret_leaves() {
    let master = Master::start().await;
    let created = master.add("pinned").await;
    let mut token = token(&created);
    let folder = tempfile::tempdir().unwrap();
    token.pin = foreign_pin(folder.path());
    let mut forged = created.clone();
    forged["join_token"] = json!(token.expose());
    let mut agent = Agent::new(&forged, Some(ALLOW_ALL));
    agent.start();
    eventually(Duration::from_secs(15), "the agent names the pin", || async {
        agent.log().to_lowercase().contains("pin").then_some(())
    })
    .await;
    assert!(!master.log().contains("agent enrolled"));
    assert!(!agent.log().contains(token.secret.expose_secret()), "the secret stands in the agent's log");
}

/// A certificate of five weeks ago with a known key renews; of a suspended agent it does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ran_out_renews_unless_its_agent_is_suspended() {
    let master = Master::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut puppet = Puppet::enrolled(&master.add("away").await, folder.path()).await;
    let authority = certs::authority::Authority::load_or_create(&master.data().join("ca")).unwrap();
    let five_weeks_ago = landline_tests::liar::now_ms() - 35 * 24 * 3_600_000;
    let csr = puppet.key.csr_der().unwrap();
    puppet.certificate_der = authority.issue_agent(&csr, &puppet.token.agent_id, five_weeks_ago).unwrap().der;
    let refused = puppet.hello(&hello()).await.unwrap().0;
    assert!(
        matches!(&refused, HelloReply::Refused(refusal) if refusal.code == Code::CERTIFICATE_EXPIRED),
        "{refused:?}"
    );

    let renewed = renew(&puppet.token, &puppet.key, &puppet.certificate_der).await.unwrap();
    let EnrolReply::Issued(issued) = renewed else { panic!("{renewed:?}") };
    let expired = std::mem::replace(&mut puppet.certificate_der, issued.certificate_der);
    drop(puppet.line().await);

    let suspend = json!({ "status": "suspended" });
    let (status, body) = master.api().call(Method::PATCH, "/agents/away", Some(suspend)).await;
    assert!(status.is_success(), "{body}");
    let refused = renew(&puppet.token, &puppet.key, &expired).await.unwrap();
    assert_eq!(code_of(&refused), Some(Code::SUSPENDED));
    // Another key under the same CA and name is nobody.
    let other = new_key(folder.path(), "other");
    let forged = authority
        .issue_agent(&other.csr_der().unwrap(), &puppet.token.agent_id, landline_tests::liar::now_ms() + 60_000)
        .unwrap();
    let refused = renew(&puppet.token, &other, &forged.der).await.unwrap();
    assert_eq!(code_of(&refused), Some(Code::UNKNOWN_IDENTITY));
}

/// The real agent renews by itself when it was off for too long.
#[tokio::test(flavor = "multi_thread")]
async fn the_agent_renews_an_old_certificate_by_itself() {
    let master = Master::start().await;
    let mut agent = master.agent("sleeper").await;
    agent.process().terminate(Duration::from_secs(5)).await;
    master.api().presence("sleeper", "offline", Duration::from_secs(5)).await;
    let authority = certs::authority::Authority::load_or_create(&master.data().join("ca")).unwrap();
    let state = agent.folder.path().join("state");
    let key = certs::identity::AgentKey::load_or_create(&state.join("agent.key")).unwrap();
    let five_weeks_ago = landline_tests::liar::now_ms() - 35 * 24 * 3_600_000;
    let old = authority.issue_agent(&key.csr_der().unwrap(), &"sleeper".parse().unwrap(), five_weeks_ago).unwrap();
    let path = state.join("enrolment.toml");
    let mut stored: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
    stored.insert("certificate".to_owned(), hex::encode(&old.der).into()).expect("there was a certificate before");
    certs::state::write_secret(&path, stored.to_string().as_bytes()).unwrap();
    agent.start();
    master.api().online("sleeper", Duration::from_secs(20)).await;
}
