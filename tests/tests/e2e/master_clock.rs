//! The master's wall clock is set by an hour and by ten years, ahead and back, while it runs: nobody is disconnected, work
//! goes on, what was asked before or is too old is refused, and nobody's right ends or lasts longer (SECURITY R25).

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    time::{Duration, SystemTime},
};

use landline_tests::{
    agent::Agent,
    api::{Api, port_of},
    master::Master,
    peers::echo,
    tools::faketime,
    wait::eventually,
};
use reqwest::Method;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);
const HOUR_S: i64 = 3_600;
const TEN_YEARS_S: i64 = 87_600 * HOUR_S;

/// A master whose wall clock the test sets while it runs.
struct World {
    master: Master,
    agents: Vec<Agent>,
    /// A token that ends after the usual time.
    token: Api,
    socket: TcpStream,
}

fn clock_file(master: &Master) -> PathBuf {
    master.folder.path().join("clock")
}

fn real_now_s() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

impl World {
    async fn new() -> Self {
        let mut master = Master::prepare("", "");
        std::fs::write(clock_file(&master), "+0h\n").unwrap();
        let file = clock_file(&master).display().to_string();
        master.set("LD_PRELOAD", &faketime());
        master.set("FAKETIME_TIMESTAMP_FILE", &file);
        master.set("FAKETIME_CACHE_DURATION", "1");
        master.set("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        master.run().await;
        let mut agents = Vec::new();
        for name in ["one", "two", "three"] {
            agents.push(master.agent(name).await);
        }
        let permissions = ["agents:read", "exec:run", "commands:run", "audit:read"];
        let made = master.api().post("/tokens", json!({ "name": "usual", "permissions": permissions })).await;
        let token = master.api().with_token(made["secret"].as_str().unwrap());
        let tunnel = port_of(&master.api().open_tunnel("one", echo(), "tcp").await);
        let socket = TcpStream::connect(("127.0.0.1", tunnel)).unwrap();
        Self { master, agents, token, socket }
    }

    /// Sets the clock and waits until the master's own records say so.
    async fn set(&self, offset: &str, by_s: i64) {
        std::fs::write(clock_file(&self.master), format!("{offset}\n")).unwrap();
        eventually(SOON, &format!("the master's clock is off by {by_s} s"), || async {
            self.runs("one").await;
            // Few enough that no timeline has a second page.
            tokio::time::sleep(Duration::from_millis(250)).await;
            let newest = self.token.get("/audit?limit=1").await["items"][0]["at"].as_str()?.to_owned();
            let output = Command::new("date").args(["-d", &newest, "+%s"]).output().ok()?;
            let at: i64 = String::from_utf8(output.stdout).ok()?.trim().parse().ok()?;
            // Ten years have leap days.
            ((at - real_now_s() - by_s).abs() <= 60 + by_s.abs() / 1_000).then_some(())
        })
        .await;
    }

    async fn runs(&self, agent: &str) {
        let call = self.token.request(Method::POST, &format!("/agents/{agent}/exec"));
        let said = call.json(&json!({ "argv": ["echo", "works"] })).send().await.unwrap().text().await.unwrap();
        assert!(said.contains("works") && said.contains("\"code\":0"), "{agent}: {said}");
    }

    /// Commands work once, and neither again nor under another time.
    async fn commands(&self, off_by_s: i64) {
        let call =
            |id: &str, at_s: i64| json!({ "id": format!("{id}:{off_by_s}"), "type": "GET_STATS", "timestamp": at_s });
        let send = async |call: &Value| self.token.call(Method::POST, "/agents/two/commands", Some(call.clone())).await;
        let fresh = call("fresh", real_now_s());
        let (status, answer) = send(&fresh).await;
        assert!(status.is_success() && answer["status"] == "success", "{answer}");
        let (status, answer) = send(&fresh).await;
        assert_eq!((status.as_u16(), answer["code"].as_str()), (409, Some("replayed")), "{answer}");
        for (id, at_s) in [("old", real_now_s() - HOUR_S), ("off", real_now_s() + off_by_s)] {
            let (status, answer) = send(&call(id, at_s)).await;
            assert_eq!((status.as_u16(), answer["code"].as_str()), (409, Some("stale")), "{id}: {answer}");
        }
    }

    async fn lines(&self) -> usize {
        let mut lines = 0;
        for name in ["one", "two", "three"] {
            let timeline = self.master.api().get(&format!("/agents/{name}/timeline?limit=200")).await;
            let online = |event: &&Value| event["kind"] == "agent.online";
            lines += timeline["items"].as_array().unwrap().iter().filter(online).count();
        }
        lines
    }

    fn echoes(&mut self) {
        let mut back = [0; 4];
        self.socket.set_read_timeout(Some(SOON)).unwrap();
        self.socket.write_all(b"ping").and_then(|()| self.socket.read_exact(&mut back)).unwrap();
    }

    /// Somebody who comes while the clock is wrong gets a line all the same.
    async fn comes_back(&mut self, lines: usize) {
        self.agents[2].kill();
        self.agents[2].start();
        eventually(SOON, "a new process has its line", || async { (self.lines().await == lines).then_some(()) }).await;
        self.runs("three").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_of_the_masters_clock_disconnect_nobody() {
    let mut world = World::new().await;
    let mut lines = world.lines().await;
    assert_eq!(lines, 3);
    for (offset, by_s) in [("+1h", HOUR_S), ("-1h", -HOUR_S), ("+10y", TEN_YEARS_S), ("-10y", -TEN_YEARS_S)] {
        world.set(offset, by_s).await;
        // Longer than two heartbeats' silence would take to be noticed.
        tokio::time::sleep(Duration::from_secs(3)).await;
        world.commands(by_s).await;
        world.echoes();
        for agent in ["one", "two", "three"] {
            world.runs(agent).await;
            assert_eq!(world.master.api().agent(agent).await["presence"], "online");
        }
        assert_eq!(world.lines().await, lines, "{offset}: a line was lost");
        lines += 1;
        world.comes_back(lines).await;
        println!("{offset}: three lines of three stood, work went on, replays and old requests were refused");
    }
    assert!(!world.master.log().contains("panicked"));
}
