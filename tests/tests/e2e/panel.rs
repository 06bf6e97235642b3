//! The original panel's calls and the command call against a real master and agent, in their original shapes.

use std::{net::TcpListener, time::Duration};

use landline_tests::{liar::now_ms, master::Master};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// One panel call as a form, the way the original panel sends it.
async fn panel(master: &Master, path: &str, form: &[(&str, &str)]) -> (StatusCode, Value) {
    let request = reqwest::Client::new().post(format!("{}/api/{path}", master.url())).bearer_auth(&master.api().token);
    let response = request.form(form).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

async fn with_agent(master: &Master) -> landline_tests::agent::Agent {
    let agent = master.agent("fw").await;
    let (status, body) = master.api().call(Method::PATCH, "/agents/fw", Some(json!({ "external_id": 42 }))).await;
    assert!(status.is_success(), "{body}");
    agent
}

/// All four calls, under both names.
#[tokio::test(flavor = "multi_thread")]
async fn the_four_calls_keep_their_shapes() {
    let master = Master::start_with("", "pending_timeout_s = 60").await;
    let _agent = with_agent(&master).await;
    let closed = landline_tests::peers::free_port();
    for suffix in ["", ".php"] {
        let call = |name: &str| format!("{name}{suffix}");
        let check = || async {
            let (status, body) = panel(&master, &call("quickconnect_check"), &[("firewall_id", "42")]).await;
            assert_eq!(status, 200, "{body}");
            body
        };
        assert_eq!(check().await, json!({ "has_requests": false }));
        // Nothing listens there: the tunnel stays pending, somebody waits.
        let target = json!({ "host": "127.0.0.1", "port": closed, "scheme": "tcp" });
        let waiting = master.api().post("/tunnels", json!({ "agent_id": "fw", "target": target })).await;
        assert_eq!(check().await, json!({ "has_requests": true }));
        let id = waiting["id"].as_str().unwrap();

        let seen = [("request_id", id), ("status", "active"), ("tunnel_pid", "4711"), ("tunnel_port", "8123")];
        assert_eq!(panel(&master, &call("tunnel_status"), &seen).await, (StatusCode::OK, json!({ "success": true })));
        let tunnel = master.api().tunnel(id).await;
        assert_eq!((&tunnel["tunnel_pid"], &tunnel["tunnel_port"]), (&json!(4711), &json!(8123)));
        assert_eq!(tunnel["status"], "pending", "a panel's word forces no state");

        let beat = panel(&master, &call("tunnel_heartbeat"), &[("request_id", id)]).await;
        assert_eq!(beat, (StatusCode::OK, json!({ "keep_alive": true })));
        let close = panel(&master, &call("tunnel_close"), &[("request_id", id)]).await;
        assert_eq!(close, (StatusCode::OK, json!({ "success": true })));
        let over = master.api().tunnel_becomes(id, "disconnected", Duration::from_secs(5)).await;
        assert_eq!(over["closed_reason"], "closed_by_user", "{over}");
        let beat = panel(&master, &call("tunnel_heartbeat"), &[("request_id", id)]).await;
        assert_eq!(beat, (StatusCode::OK, json!({ "keep_alive": false })));
        assert_eq!(check().await, json!({ "has_requests": false }));
    }
    master.sockets_equal_rows().await;
}

/// A final word of the panel closes the tunnel, and its listener with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_final_word_of_the_panel_closes_the_tunnel() {
    let master = Master::start().await;
    let _agent = with_agent(&master).await;
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    for word in ["disconnected", "timeout", "expired"] {
        let tunnel = master.api().open_tunnel("fw", target.local_addr().unwrap().port(), "tcp").await;
        assert_eq!(tunnel["status"], "active", "{tunnel}");
        let id = tunnel["id"].as_str().unwrap();
        let (status, body) = panel(&master, "tunnel_status.php", &[("request_id", id), ("status", word)]).await;
        assert_eq!((status, body), (StatusCode::OK, json!({ "success": true })), "{word}");
        master.api().tunnel_becomes(id, "disconnected", Duration::from_secs(5)).await;
        master.sockets_equal_rows().await;
    }
}

/// What the panel gets wrong is told in its own shape, and ids that do not exist look all the same.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_ids_and_wrong_words_are_told_in_the_panels_shape() {
    let master = Master::start().await;
    let unknown = uuid::Uuid::new_v4().to_string();
    type Form<'a> = &'a [(&'a str, &'a str)];
    let calls: [(&str, Form<'_>, u16); 8] = [
        ("quickconnect_check", &[("firewall_id", "7")], 404),
        ("tunnel_status.php", &[("request_id", &unknown), ("status", "active")], 404),
        ("tunnel_heartbeat", &[("request_id", &unknown)], 404),
        ("tunnel_close.php", &[("request_id", &unknown)], 404),
        ("tunnel_close", &[("request_id", "../../etc/passwd")], 404),
        ("tunnel_close", &[], 422),
        ("quickconnect_check.php", &[("firewall_id", "seven")], 422),
        ("quickconnect_check", &[], 422),
    ];
    for (path, form, wanted) in calls {
        let (status, body) = panel(&master, path, form).await;
        assert_eq!(status, wanted, "{path} {form:?}: {body}");
        assert_eq!(body["success"], false, "{path} {form:?}: {body}");
        assert!(body["error"].as_str().is_some_and(|text| !text.is_empty()), "{path}: {body}");
    }
    let without_token = reqwest::Client::new().post(format!("{}/api/tunnel_close.php", master.url()));
    assert_eq!(without_token.form(&[("request_id", &unknown)]).send().await.unwrap().status(), 401);
}

fn command(id: &str, service: &str, action: &str) -> Value {
    json!({ "id": id, "type": "COMMAND", "service": service, "action": action, "timestamp": now_ms() / 1000 })
}

/// Both shapes of the command call, and every way in which it is refused.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_call_in_its_original_shapes() {
    let master = Master::start().await;
    let _agent = with_agent(&master).await;
    let api = master.api();
    let stats = json!({ "id": "s-1", "type": "GET_STATS", "timestamp": now_ms() / 1000 });
    let reply = api.post("/agents/fw/commands", stats.clone()).await;
    assert_eq!((&reply["requestId"], &reply["status"]), (&json!("s-1"), &json!("success")), "{reply}");
    assert!(reply["data"].is_object() && reply["error"].is_null(), "{reply}");
    let reply = api.post("/agents/fw/commands", command("c-1", "system", "getInfo")).await;
    assert_eq!((&reply["requestId"], &reply["status"]), (&json!("c-1"), &json!("success")), "{reply}");

    let refused = |body: Value| {
        let api = api.clone();
        async move { api.refused(Method::POST, "/agents/fw/commands", Some(body)).await }
    };
    assert_eq!(refused(stats).await, (409, "replayed".to_owned()));
    for off_s in [-31, 31] {
        let mut stale = command(&format!("old{off_s}"), "system", "getInfo");
        stale["timestamp"] = json!(now_ms() / 1000 + off_s + off_s.signum());
        assert_eq!(refused(stale).await, (409, "stale".to_owned()), "{off_s}");
    }
    // In milliseconds just beyond the window, to the millisecond that the way there takes.
    let mut stale = command("ms", "system", "getInfo");
    stale["timestamp"] = json!(now_ms() - 31_000);
    assert_eq!(refused(stale).await, (409, "stale".to_owned()));
    // A refusal for staleness is no use of the id.
    api.post("/agents/fw/commands", command("ms", "system", "getInfo")).await;

    let unknown = api.post("/agents/fw/commands", command("u-1", "system", "makeCoffee")).await;
    assert_eq!((&unknown["status"], &unknown["code"]), (&json!("error"), &json!("unknown_action")), "{unknown}");
    assert!(unknown["error"].as_str().is_some_and(|text| !text.is_empty()), "{unknown}");
    assert_eq!(refused(json!({ "id": "x", "type": "COMMAND", "timestamp": 1 })).await, (422, "invalid".to_owned()));
}

/// An agent that is away, one that does not exist, and one whose owner forbids it.
#[tokio::test(flavor = "multi_thread")]
async fn commands_that_cannot_be_carried_out_say_why() {
    let master = Master::start().await;
    let api = master.api();
    master.add("away").await;
    let _guarded = master.agent_under("guarded", None).await;
    let send = |agent: &str, id: &str, service: &str| {
        let (api, path, body) = (api.clone(), format!("/agents/{agent}/commands"), command(id, service, "list"));
        async move { api.refused(Method::POST, &path, Some(body)).await }
    };
    assert_eq!(send("away", "1", "process").await, (409, "agent_offline".to_owned()));
    assert_eq!(send("nobody", "1", "process").await, (404, "not_found".to_owned()));
    assert_eq!(send("guarded", "1", "process").await, (403, "policy".to_owned()));
}
