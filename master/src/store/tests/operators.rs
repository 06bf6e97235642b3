//! People as rows: there is always an admin, setup happens once, and what ends with what.

use super::*;
use crate::store::{
    Page,
    operators::{
        ADMIN, AddOperatorError, ChangeOperatorError, Made, Operator, OperatorChange, OperatorSession,
        RemoveOperatorError,
    },
    testing::on_both,
    tokens::ApiToken,
};

fn person(name: &str, role: &str) -> Operator {
    Operator {
        id: name.into(),
        name: name.into(),
        role: role.into(),
        selector: String::new(),
        password: "$argon2id$x".into(),
        totp_secret: None,
        totp_pending: None,
        created_at_ms: NOW,
        last_login_at_ms: None,
    }
}

fn session(id: &str, of: &str, number: u8) -> OperatorSession {
    OperatorSession {
        id: id.into(),
        operator_id: of.into(),
        sha256: [number; 32],
        socket: "internal".into(),
        source: Some("192.0.2.1".into()),
        user_agent: None,
        created_at_ms: NOW + i64::from(number),
        seen_at_ms: NOW,
        proved_at_ms: NOW,
        expires_at_ms: NOW + 1_000,
    }
}

pub(super) async fn add_person(store: &Store, name: &str, role: &str) {
    store.operators().add(&person(name, role), Made::ByCaller, &entry("operator.add")).await.unwrap();
}

#[tokio::test]
async fn setup_makes_one_admin_and_is_over_for_ever() {
    on_both(async |store| {
        let people = store.operators();
        assert!(!people.setup_is_over().await.unwrap());
        add_person(&store, "viewer", "viewer").await;
        assert!(!people.setup_is_over().await.unwrap(), "only an admin ends it");
        let (one, two) = (person("one", ADMIN), person("two", ADMIN));
        let (entry_one, entry_two) = (entry("operator.setup"), entry("operator.setup"));
        let made =
            tokio::join!(people.add(&one, Made::BySetup, &entry_one), people.add(&two, Made::BySetup, &entry_two));
        let over = |made: &Result<(), AddOperatorError>| matches!(made, Err(AddOperatorError::SetupOver));
        assert!(made.0.is_ok() != made.1.is_ok() && over(&made.0) != over(&made.1), "{made:?}");
        let mut write = store.write("test").await.unwrap();
        write.execute(Sql::new("DELETE FROM operators")).await.unwrap();
        write.commit().await.unwrap();
        assert!(people.setup_is_over().await.unwrap(), "with an empty table, too");
        let again = people.add(&person("three", ADMIN), Made::BySetup, &entry("operator.setup")).await;
        assert!(over(&again), "{again:?}");
        add_person(&store, "four", ADMIN).await;
        let taken = people.add(&person("four", "viewer"), Made::ByCaller, &entry("operator.add")).await;
        assert!(matches!(taken, Err(AddOperatorError::Exists)), "{taken:?}");
    })
    .await;
}

#[tokio::test]
async fn there_is_always_an_admin_for_the_whole_fleet() {
    on_both(async |store| {
        let people = store.operators();
        add_person(&store, "one", ADMIN).await;
        add_person(&store, "narrow", ADMIN).await;
        let narrowed = OperatorChange { selector: Some("site=home".into()), ..OperatorChange::default() };
        people.change("narrow", &narrowed, None, &entry("operator.change")).await.unwrap();
        let demoted = OperatorChange { role: Some("viewer".into()), ..OperatorChange::default() };
        for change in [&narrowed, &demoted] {
            let refused = people.change("one", change, None, &entry("operator.change")).await;
            assert!(matches!(refused, Err(ChangeOperatorError::LastAdmin)), "{refused:?}");
        }
        let refused = people.remove("one", NOW, &entry("operator.remove")).await;
        assert!(matches!(refused, Err(RemoveOperatorError::LastAdmin)), "{refused:?}");
        assert_eq!(people.find("one").await.unwrap().unwrap().role, ADMIN, "nothing of it was done");
        let unknown = people.remove("nobody", NOW, &entry("operator.remove")).await;
        assert!(matches!(unknown, Err(RemoveOperatorError::Unknown)));

        // Two who remove each other at once: one stays.
        add_person(&store, "two", ADMIN).await;
        let (first, second) = (entry("operator.remove"), entry("operator.remove"));
        let removed = tokio::join!(people.remove("one", NOW, &first), people.remove("two", NOW, &second));
        assert!(removed.0.is_ok() != removed.1.is_ok(), "{removed:?}");
        people.remove("narrow", NOW, &entry("operator.remove")).await.unwrap();
        let left = people.list(&Page::default()).await.unwrap().items;
        assert!(left.len() == 1 && left[0].role == ADMIN, "{left:?}");
    })
    .await;
}

#[tokio::test]
async fn sessions_end_with_what_they_hang_on() {
    on_both(async |store| {
        let (people, sessions) = (store.operators(), store.operator_sessions());
        add_person(&store, "root", ADMIN).await;
        add_person(&store, "ada", "operator").await;
        for (id, number) in [("a", 1), ("b", 2), ("c", 3)] {
            assert!(sessions.begin(&session(id, "ada", number), &entry("operator.login")).await.unwrap());
        }
        assert!(!sessions.begin(&session("x", "nobody", 9), &entry("operator.login")).await.unwrap());
        let (found, of) = sessions.by_sha256(&[2; 32]).await.unwrap().unwrap();
        assert_eq!((found.id.as_str(), of.name.as_str(), of.last_login_at_ms), ("b", "ada", Some(NOW + 3)));
        let ids =
            async || sessions.list("ada").await.unwrap().into_iter().map(|session| session.id).collect::<Vec<_>>();
        assert_eq!(ids().await, ["c", "b", "a"]);
        assert!(!sessions.end("root", "c", &entry("operator.session_end")).await.unwrap(), "another's");
        assert!(sessions.end("ada", "c", &entry("operator.session_end")).await.unwrap());
        let password = OperatorChange { password: Some("$argon2id$y".into()), ..OperatorChange::default() };
        people.change("ada", &password, Some("a"), &entry("operator.password")).await.unwrap();
        assert_eq!(ids().await, ["a"], "a new password leaves one's own session alone");
        for number in 10..80 {
            sessions.begin(&session(&format!("s{number}"), "ada", number), &entry("operator.login")).await.unwrap();
        }
        assert_eq!(ids().await.len(), 50, "the oldest go");
        let token = ApiToken {
            id: "t".into(),
            name: "of ada".into(),
            sha256: [200; 32],
            permissions: "agents:read".into(),
            selector: String::new(),
            created_by: "operator:ada".into(),
            created_at_ms: NOW,
            expires_at_ms: None,
            revoked_at_ms: None,
            operator_id: Some("ada".into()),
        };
        store.tokens().add(&token, &entry("token.create")).await.unwrap();
        people.remove("ada", NOW + 5, &entry("operator.remove")).await.unwrap();
        assert!(ids().await.is_empty() && sessions.find("s79").await.unwrap().is_none());
        assert_eq!(store.tokens().find("t").await.unwrap().unwrap().revoked_at_ms, Some(NOW + 5));
    })
    .await;
}

#[tokio::test]
async fn a_time_step_is_taken_once_and_a_secret_offered_before_it_is_on() {
    on_both(async |store| {
        let people = store.operators();
        add_person(&store, "ada", "viewer").await;
        let (one, two) = tokio::join!(people.take_step("ada", 7), people.take_step("ada", 7));
        assert!(one.unwrap() != two.unwrap(), "one of two takes it");
        assert!(!people.take_step("ada", 6).await.unwrap() && people.take_step("ada", 8).await.unwrap());
        assert!(!people.turn_totp_on("ada", "S", 9, &entry("operator.totp_on")).await.unwrap(), "nothing was offered");
        assert!(people.offer_totp("ada", "OLD").await.unwrap() && people.offer_totp("ada", "S").await.unwrap());
        assert!(!people.turn_totp_on("ada", "OLD", 9, &entry("operator.totp_on")).await.unwrap());
        assert!(people.turn_totp_on("ada", "S", 9, &entry("operator.totp_on")).await.unwrap());
        assert!(!people.offer_totp("ada", "OTHER").await.unwrap(), "it is on");
        assert!(!people.take_step("ada", 9).await.unwrap(), "the code that turned it on is used");
        let off = OperatorChange { totp_off: true, ..OperatorChange::default() };
        people.change("ada", &off, None, &entry("operator.change")).await.unwrap();
        assert_eq!(people.find("ada").await.unwrap().unwrap().totp_secret, None);
    })
    .await;
}
