//! A new key for an agent that is there: the old one is worth nothing from the first use of the new, and no kill leaves the
//! agent with neither.

use std::time::Duration;

use certs::identity::AgentKey;
use landline_tests::{
    agent::{ALLOW_ALL, Agent},
    cli,
    liar::now_ms,
    master::Master,
    puppet::{Puppet, hello, renew, token},
    wait::eventually,
};
use proto::{code::Code, control::HelloReply, enrol::EnrolReply};
use rand::{Rng, SeedableRng, rngs::StdRng};
use reqwest::Method;
use serde_json::json;

/// An agent that runs, and a thief with a copy of what its state folder held.
async fn robbed(master: &Master) -> (Agent, Puppet) {
    let created = master.add("home").await;
    let mut agent = Agent::new(&created, Some(ALLOW_ALL));
    agent.start();
    master.api().online("home", Duration::from_secs(10)).await;
    let state = agent.folder.path().join("state");
    let copy = agent.folder.path().join("copy.key");
    std::fs::copy(state.join("agent.key"), &copy).unwrap();
    let stored: toml::Table = std::fs::read_to_string(state.join("enrolment.toml")).unwrap().parse().unwrap();
    let certificate_der = hex::decode(stored["certificate"].as_str().unwrap()).unwrap();
    let thief = Puppet { token: token(&created), key: AgentKey::load_or_create(&copy).unwrap(), certificate_der };
    (agent, thief)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_key_is_refused_after_a_rotation_and_the_line_stays_up() {
    let master = Master::start().await;
    let (mut agent, thief) = robbed(&master).await;
    let before = master.api().agent("home").await;
    let renewal = renew(&thief.token, &thief.key, &thief.certificate_der).await.unwrap();
    assert!(matches!(renewal, EnrolReply::Issued(_)), "the copy is good until then: {renewal:?}");

    let rotated = cli::output(cli::landline(&master, &["agents", "rotate", "home"])).await;
    assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
    assert_eq!(String::from_utf8_lossy(&rotated.stdout), "home has a new key; its old one is refused\n");
    let after = master.api().agent("home").await;
    assert_eq!((&after["presence"], &after["connected_at"]), (&before["presence"], &before["connected_at"]));
    let renewal = renew(&thief.token, &thief.key, &thief.certificate_der).await.unwrap();
    assert!(matches!(&renewal, EnrolReply::Refused(refusal) if refusal.code == Code::UNKNOWN_IDENTITY), "{renewal:?}");
    let (reply, _) = thief.hello(&hello()).await.unwrap();
    assert!(matches!(&reply, HelloReply::Refused(refusal) if refusal.code == Code::UNKNOWN_IDENTITY), "{reply:?}");
    let timeline = master.api().get("/agents/home/timeline").await.to_string();
    assert!(timeline.contains("agent.key_rotated"), "{timeline}");

    // What is on its disk is the new one, and nothing of the old.
    assert!(!agent.folder.path().join("state/agent.key").exists());
    agent.process().terminate(Duration::from_secs(5)).await;
    master.api().presence("home", "offline", Duration::from_secs(5)).await;
    let refused = master.api().refused(Method::POST, "/agents/home/rotate", None).await;
    assert_eq!((refused.0, refused.1.as_str()), (409, "agent_offline"));
    agent.start();
    master.api().online("home", Duration::from_secs(20)).await;
    // And again, from a key that is itself a second one.
    assert_eq!(master.api().call(Method::POST, "/agents/home/rotate", None).await.0, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_kill_in_a_rotation_locks_an_agent_out() {
    let mut random = StdRng::seed_from_u64(4);
    let mut master = Master::start().await;
    let (mut agent, _) = robbed(&master).await;
    let (mut done, kills) = (0, 6);
    for kill in 0..kills {
        let api = master.api();
        let rotation = tokio::spawn(async move {
            api.request(Method::POST, "/agents/home/rotate").send().await.is_ok_and(|answer| answer.status() == 204)
        });
        // A rotation takes some tens of milliseconds: the kills fall before, into and behind it.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..80))).await;
        if kill % 3 == 2 {
            master.kill();
            master.run().await;
        } else {
            agent.kill();
            agent.start();
        }
        rotation.abort();
        done += usize::from(rotation.await.is_ok_and(|rotated| rotated));
        master.api().online("home", Duration::from_secs(60)).await;
        // The line of before the kill may still look like one: what counts is that the agent answers.
        eventually(Duration::from_secs(60), "the agent answers", || async {
            let id = format!("{kill}-{}", now_ms());
            let call = json!({ "id": id, "type": "GET_STATS", "timestamp": now_ms() });
            let answer = master.api().call(Method::POST, "/agents/home/commands", Some(call)).await;
            answer.0.is_success().then_some(())
        })
        .await;
    }
    println!("{kills} kills, {done} rotations were finished before");
}
