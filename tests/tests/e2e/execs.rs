//! Execs through the real binaries: they outlive their caller, the line, and the master, and their output is exact.

use std::time::Duration;

use landline_tests::{
    api::Api,
    master::Master,
    process::resident,
    puppet::{Puppet, PuppetLine},
    soak,
    wait::eventually,
};
use proto::{
    exec::{Attached, End, FromExec, Outcome, ToExec},
    net::stream::FrameStream,
    open::{OpenReply, Opened},
};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

/// The lines of one call, and the output that they carried.
struct Reader {
    response: Response,
    rest: Vec<u8>,
    output: Vec<u8>,
}

impl Reader {
    fn new(response: Response) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        Self { response, rest: Vec::new(), output: Vec::new() }
    }

    async fn start(api: &Api, agent: &str, call: Value) -> (String, Self) {
        let request = api.request(Method::POST, &format!("/agents/{agent}/exec")).json(&call);
        let mut reader = Self::new(request.send().await.unwrap());
        let started = reader.line().await.unwrap();
        (started["exec_id"].as_str().unwrap().to_owned(), reader)
    }

    async fn from(api: &Api, id: &str, offset: usize) -> Option<Self> {
        let response = api.request(Method::GET, &format!("/execs/{id}/output?offset={offset}")).send().await.ok()?;
        (response.status() == StatusCode::OK).then(|| Self::new(response))
    }

    /// The next line; `None` at the end of the connection.
    async fn line(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Value = serde_json::from_slice(&self.rest[..end]).unwrap();
                self.rest.drain(..=end);
                if ["stdout", "stderr"].contains(&line["type"].as_str().unwrap()) {
                    self.output.extend(line["data"].as_str().expect("text").as_bytes());
                }
                return Some(line);
            }
            let piece = tokio::time::timeout(Duration::from_secs(60), self.response.chunk()).await.expect("a line");
            self.rest.extend(piece.ok()??);
        }
    }

    async fn until(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.output).contains(text) {
            let line = self.line().await.expect("more output");
            assert_ne!(line["type"], "error", "{line}");
        }
    }

    async fn exit(&mut self) -> Value {
        loop {
            let line = self.line().await.expect("an end");
            if ["exit", "error"].contains(&line["type"].as_str().unwrap()) {
                return line;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_outlives_a_new_address_a_cut_line_and_a_killed_master() {
    let mut master = Master::start().await;
    let (_agent, link) = master.agent_behind("far", 6).await;
    let api = master.api();
    let count = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo $i; sleep 0.05; done; exit 9";
    let (id, mut reader) = Reader::start(&api, "far", json!({ "shell": count })).await;
    reader.until("20\n").await;
    link.readdress();
    reader.until("60\n").await;
    link.cut();
    tokio::time::sleep(Duration::from_secs(soak::count(4, 20))).await;
    link.restore();
    reader.until("160\n").await;
    let mut all = reader.output.clone();
    master.kill();
    drop(reader);
    master.run().await;
    let api = master.api();
    let mut again = eventually(Duration::from_secs(30), "the exec can be read on", || async {
        Reader::from(&api, &id, all.len()).await
    })
    .await;
    assert_eq!(again.exit().await["code"], 9);
    all.extend(&again.output);
    let expected: String = (1..=400).map(|n| format!("{n}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&all), expected, "each number once");
    let row = api.get(&format!("/execs/{id}")).await;
    assert_eq!((&row["end_reason"], &row["exit_code"]), (&json!("exited"), &json!(9)), "{row}");
    assert_eq!(row["now"]["output"], all.len(), "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_lets_it_run_and_its_end_is_on_record() {
    let master = Master::start().await;
    let _agent = master.agent("desk").await;
    let api = master.api();
    let (id, reader) = Reader::start(&api, "desk", json!({ "shell": "cat; echo over >&2", "stdin_open": true })).await;
    drop(reader);
    let put = async |offset: u64, end: bool, body: &'static str| {
        let path = format!("/execs/{id}/stdin?offset={offset}&end={end}");
        let response = api.request(Method::PUT, &path).body(body).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    assert_eq!(put(0, false, "one ").await, (200, json!({ "offset": 4 })));
    // The same once more, and a gap.
    assert_eq!(put(0, false, "one two ").await, (200, json!({ "offset": 8 })));
    let (status, problem) = put(9, false, "x").await;
    assert_eq!((status, &problem["code"], &problem["offset"]), (409, &json!("bad_offset"), &json!(8)));
    assert_eq!(put(8, true, "three").await.0, 200);
    let ended = eventually(Duration::from_secs(10), "its end is on record", || async {
        let row = api.get(&format!("/execs/{id}")).await;
        (!row["ended_at"].is_null()).then_some(row)
    })
    .await;
    assert_eq!(ended["exit_code"], 0, "{ended}");
    assert_eq!(put(13, false, "late").await.1["code"], "session_over");
    let mut reader = Reader::from(&api, &id, 0).await.unwrap();
    assert_eq!(reader.exit().await["code"], 0);
    assert_eq!(reader.output, b"one two threeover\n");
    let beyond = format!("/execs/{id}/output?offset=1000");
    assert_eq!(api.refused(Method::GET, &beyond, None).await, (409, "output_gone".into()));
    let again = api.refused(Method::DELETE, &format!("/execs/{id}"), None).await;
    assert_eq!(again, (409, "session_over".into()));

    let secret = json!({ "name": "other", "permissions": ["exec:run"] });
    let other = api.post("/tokens", secret).await["secret"].as_str().unwrap().to_owned();
    let other = api.with_token(&other);
    let (id, _reader) = Reader::start(&api, "desk", json!({ "shell": "sleep 600" })).await;
    let output = format!("/execs/{id}/output");
    assert_eq!(other.refused(Method::GET, &output, None).await, (403, "not_owner".into()));
    other.call(Method::DELETE, &format!("/execs/{id}"), None).await;
    let row = eventually(Duration::from_secs(10), "it is cancelled", || async {
        let row = api.get(&format!("/execs/{id}")).await;
        (!row["ended_at"].is_null()).then_some(row)
    })
    .await;
    assert_eq!(row["end_reason"], "cancelled");
}

/// A program that prints for ever is held while nobody reads, costs no memory, and is gone when it is cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_prints_for_ever_is_held_and_ends_when_it_is_told_to() {
    let mut master = Master::start().await;
    let mut agent = master.agent("desk").await;
    let api = master.api();
    let mark = agent.folder.path().join("pid");
    let line = format!("echo $$ > {}; exec yes", mark.display());
    let (id, mut reader) = Reader::start(&api, "desk", json!({ "shell": line })).await;
    reader.until("y\ny\n").await;
    let pids = [master.process().pid(), agent.process().pid()];
    let held = pids.map(resident);
    let mut read = 0;
    while read < 20_000_000 {
        reader.line().await.expect("more output");
        read += std::mem::take(&mut reader.output).len();
    }
    let pid = std::fs::read_to_string(&mark).unwrap();
    let status = format!("/proc/{}", pid.trim());
    for (pid, held) in pids.into_iter().zip(held) {
        let grown = resident(pid).saturating_sub(held);
        assert!(grown < 40 << 20, "process {pid} grew by {grown} bytes");
    }
    api.call(Method::DELETE, &format!("/execs/{id}"), None).await;
    eventually(Duration::from_secs(10), "the program is gone", || async {
        (!std::path::Path::new(&status).exists()).then_some(())
    })
    .await;
    // The end stands behind what was printed before it: whoever reads gets there, and then it is on record.
    while reader.line().await.is_some() {
        reader.output.clear();
    }
    eventually(Duration::from_secs(10), "its end is on record", || async {
        (api.get(&format!("/execs/{id}")).await["end_reason"] == "cancelled").then_some(())
    })
    .await;
}

/// The next stream of a played agent, answered with `first`.
async fn played(line: &PuppetLine, first: FromExec) -> FrameStream {
    let (_, mut stream) = PuppetLine::work(&line.connection).await.unwrap();
    stream.send.write_frame(&OpenReply::Opened(Opened { peer: None })).await.unwrap();
    stream.send.write_frame(&first).await.unwrap();
    stream
}

fn attached(stdin: u64, outcome: Option<Outcome>) -> FromExec {
    let stdin_open = outcome.is_none();
    FromExec::Attached(Attached { pid: 1, kept_from: 0, output: 0, stdin, stdin_taken: stdin, stdin_open, outcome })
}

/// A program may end while input is on its way: what it did not get is not confirmed, and is no gap afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn input_that_comes_too_late_is_told_as_that() {
    let (master, folder) = (Master::start().await, tempfile::tempdir().unwrap());
    let line = Puppet::enrolled(&master.add("played").await, folder.path()).await.line().await;
    let api = master.api();
    api.online("played", Duration::from_secs(20)).await;
    let start = async { Reader::start(&api, "played", json!({ "argv": ["head"], "stdin_open": true })).await };
    let ((id, _reader), _started) = tokio::join!(start, played(&line, FromExec::Started { pid: 1 }));
    let put = async |offset: u64| {
        let path = format!("/execs/{id}/stdin?offset={offset}&end=false");
        let response = api.request(Method::PUT, &path).body(vec![b'x'; 200_000]).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let over = Outcome { end: End::Exited(0), truncated: false };
    let ends = async {
        let mut stream = played(&line, attached(0, None)).await;
        while stream.recv.next::<ToExec>().await.is_ok() {}
        for last in [FromExec::StdinTaken { offset: 7970 }, FromExec::Ended(over.clone())] {
            stream.send.write_frame(&last).await.unwrap();
        }
        stream.send.finish();
        stream
    };
    let ((status, told), _stream) = tokio::join!(put(0), ends);
    assert_eq!((status, &told["code"]), (409, &json!("session_over")), "{told}");
    let ((status, told), _stream) = tokio::join!(put(200_000), played(&line, attached(7970, Some(over.clone()))));
    assert_eq!((status, &told["code"]), (409, &json!("session_over")), "{told}");
}
