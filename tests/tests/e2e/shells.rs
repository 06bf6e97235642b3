//! Shells through the real binaries: what is typed and shown arrives as it is, sessions outlive lines and masters, and
//! the recording says what was seen.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use landline_tests::{
    agent::Agent,
    binary,
    master::Master,
    soak,
    terminal::{Terminal, open},
    wait::eventually,
};
use reqwest::Method;
use serde_json::json;

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_and_shown_arrives_as_it_is() {
    let master = Master::start().await;
    let _agent = master.agent("desk").await;
    let api = master.api();
    // Every byte value, and a character torn over two writes.
    let line = r"stty raw -echo; printf 'gr\303'; sleep 0.2; printf '\274n\377\376|'; head -c 6 | od -An -tx1; stty sane; stty size; exit 7";
    let id = open(&api, "desk", line).await;
    let mut terminal = Terminal::attach(&api, &id, "offset=0").await.unwrap();
    terminal.until_text("|").await;
    assert_eq!(terminal.shown, b"gr\xc3\xbcn\xff\xfe|");
    terminal.say(json!({ "type": "resize", "cols": 132, "rows": 50 })).await;
    terminal.send(b"\x00\x03\xff").await;
    terminal.send("ü\n".as_bytes()).await;
    let exit = terminal.exit().await;
    assert_eq!((&exit["code"], &exit["signal"]), (&json!(7), &json!(null)), "{exit}");
    let text = String::from_utf8_lossy(&terminal.shown).into_owned();
    assert!(text.contains("00 03 ff c3 bc 0a"), "{text}");
    assert!(text.contains("50 132"), "{text}");
    let row = api.get(&format!("/shells/{id}")).await;
    assert_eq!((&row["end_reason"], &row["exit_code"], &row["recorded"]), (&json!("exited"), &json!(7), &json!(true)));

    let id = open(&api, "desk", "kill -TERM $$").await;
    let exit = Terminal::attach(&api, &id, "offset=0").await.unwrap().exit().await;
    assert_eq!(exit["signal"], 15, "{exit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_mebibytes_arrive_and_an_interrupt_is_felt_at_once() {
    let master = Master::start().await;
    let _agent = master.agent("desk").await;
    let api = master.api();
    let id =
        open(&api, "desk", "stty -opost -echo; read go; head -c 104857600 /dev/zero | tr '\\0' x; echo done").await;
    let mut terminal = Terminal::attach(&api, &id, "offset=0").await.unwrap();
    // What is printed before anybody looks is kept to a mebibyte only.
    terminal.send(b"\n").await;
    let started = Instant::now();
    assert_eq!(terminal.exit().await["code"], 0);
    assert_eq!((terminal.shown.len(), terminal.lost), (100 * MIB + 5, 0));
    assert!(terminal.shown[..100 * MIB].iter().all(|b| *b == b'x'));
    println!("100 MiB in {:?}", started.elapsed());

    let flood = "trap 'echo interrupted; exit 3' INT; while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done";
    let mut slowest = Duration::ZERO;
    for _ in 0..5 {
        let id = open(&api, "desk", flood).await;
        let mut terminal = Terminal::attach(&api, &id, "offset=0").await.unwrap();
        terminal.until(|terminal| terminal.shown.len() > MIB).await;
        let typed = Instant::now();
        terminal.send(b"\x03").await;
        terminal.until_text("interrupted").await;
        slowest = slowest.max(typed.elapsed());
        assert_eq!(terminal.exit().await["code"], 3);
    }
    println!("Ctrl-C in a flood: slowest of five {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

/// Lines of a counter, and no other.
fn counted(shown: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(shown);
    let mut expected = 1;
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line.parse::<u64>() {
            Ok(number) if number == expected => expected += 1,
            // The last line may be half there.
            Ok(_) | Err(_) if text.ends_with(line) => {}
            Ok(_) | Err(_) => panic!("after {} came {line:?}", expected - 1),
        }
    }
    expected - 1
}

const COUNT: &str = "stty -opost; i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo $i; sleep 0.05; done; exit 9";

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_a_cut_line_a_new_address_and_a_killed_master() {
    let mut master = Master::start().await;
    let (_agent, link) = master.agent_behind("far", 5).await;
    let api = master.api();
    let id = open(&api, "far", COUNT).await;
    let mut terminal = Terminal::attach(&api, &id, "offset=0").await.unwrap();
    terminal.until_text("20\n").await;
    link.readdress();
    terminal.until_text("60\n").await;
    link.cut();
    tokio::time::sleep(Duration::from_secs(soak::count(4, 20))).await;
    link.restore();
    terminal.until_text("160\n").await;
    assert!(counted(&terminal.shown) >= 160);
    let (shown, offset) = (terminal.shown.clone(), terminal.offset());
    master.kill();
    drop(terminal);
    master.run().await;
    let mut again = eventually(Duration::from_secs(30), "the session can be attached to again", || async {
        Terminal::attach(&master.api(), &id, &format!("offset={offset}")).await.ok()
    })
    .await;
    assert_eq!(again.exit().await["code"], 9);
    let all = [shown, again.shown.clone()].concat();
    assert_eq!((counted(&all), again.from, again.lost), (400, offset, 0), "each number once");
    // What was recorded by two masters is what was shown.
    let mut command = Command::new(binary("landline"));
    command.env("LANDLINE_URL", master.url()).env("LANDLINE_DATA_DIR", master.data());
    let replayed = command.args(["replay", "--instant", &id]).output().unwrap();
    assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stderr));
    assert!(replayed.stdout == all, "the recording replays byte for byte");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_types_others_watch_and_strangers_do_neither() {
    let master = Master::start().await;
    let _agent = master.agent("desk").await;
    let api = master.api();
    let id = open(&api, "desk", "stty -echo; echo ready; while read line; do echo \"got $line\"; done").await;
    let mut first = Terminal::attach(&api, &id, "offset=0").await.unwrap();
    first.until_text("ready").await;
    let token = async |permissions: &[&str], selector: &str| {
        let body = json!({ "name": "t", "permissions": permissions, "selector": selector });
        let token = api.post("/tokens", body).await;
        api.with_token(token["secret"].as_str().unwrap())
    };
    let colleague = token(&["shells:open", "shells:watch", "agents:read"], "").await;
    assert_eq!(Terminal::attach(&colleague, &id, "").await.err().unwrap(), "not_owner");
    let mut watcher = Terminal::attach(&colleague, &id, "mode=watch&offset=0").await.unwrap();
    watcher.until_text("ready").await;
    let stranger = token(&["shells:open", "shells:watch", "agents:read"], "site=elsewhere").await;
    assert_eq!(Terminal::attach(&stranger, &id, "mode=watch").await.err().unwrap(), "not_found");
    assert_eq!(stranger.refused(Method::GET, &format!("/shells/{id}"), None).await.0, 404);
    assert_eq!(stranger.refused(Method::DELETE, &format!("/shells/{id}"), None).await.0, 404);
    first.send(b"one\n").await;
    first.until_text("got one").await;
    let mut second = Terminal::attach(&api, &id, "offset=0").await.unwrap();
    second.send(b"two\n").await;
    second.until_text("got two").await;
    first.until(|_| false).await;
    assert_eq!(first.closed.as_deref(), Some("taken_over"));
    watcher.send(b"three\n").await;
    watcher.until(|_| false).await;
    assert_eq!(watcher.closed.as_deref(), Some("read_only"));
    for size in [json!({ "cols": 0, "rows": 0 }), json!({ "cols": 65535, "rows": 65535 })] {
        assert_eq!(api.refused(Method::POST, "/agents/desk/shells", Some(size)).await, (422, "invalid".into()));
    }
    assert_eq!(Terminal::attach(&api, &id, "offset=99999999").await.err().unwrap(), "output_gone");
    api.call(Method::DELETE, &format!("/shells/{id}"), None).await;
    assert_eq!(second.exit().await["reason"], "cancelled");
    let audit = api.get(&format!("/shells/{id}")).await;
    assert_eq!(audit["end_reason"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn suspending_ends_it_and_a_policy_that_forbids_it_says_so() {
    let master = Master::start().await;
    let agent: Agent = master.agent("desk").await;
    let api = master.api();
    let mark = agent.folder.path().join("mark");
    let id = open(&api, "desk", &format!("trap '' HUP; echo $$ > {0}; echo ready; sleep 600", mark.display())).await;
    let mut terminal = Terminal::attach(&api, &id, "offset=0").await.unwrap();
    terminal.until_text("ready").await;
    let pid = std::fs::read_to_string(&mark).unwrap().trim().to_owned();
    let suspended = Instant::now();
    api.call(Method::PATCH, "/agents/desk", Some(json!({ "status": "suspended" }))).await;
    eventually(Duration::from_secs(2), "its processes are gone", || async {
        (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    })
    .await;
    println!("suspended: its shell was gone after {:?}", suspended.elapsed());
    assert_eq!(terminal.exit().await["reason"], "suspended");

    let _other = master.agent_under("closed", Some("[forward]\ntargets = [\"localhost:*\"]\n")).await;
    let new = json!({ "cols": 80, "rows": 24 });
    assert_eq!(api.refused(Method::POST, "/agents/closed/shells", Some(new.clone())).await, (403, "policy".into()));
    master.add("away").await;
    assert_eq!(api.refused(Method::POST, "/agents/away/shells", Some(new)).await.1, "agent_offline");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_that_nobody_reads_goes_on_and_its_loss_is_counted() {
    let master = Master::start().await;
    let agent = master.agent("desk").await;
    let api = master.api();
    let mark = agent.folder.path().join("mark");
    let line = format!("stty -opost; seq 1 2000000; echo written > {}; sleep 600", mark.display());
    let id = open(&api, "desk", &line).await;
    let mut sleeper = Terminal::attach(&api, &id, "offset=0").await.unwrap();
    sleeper.acks = false;
    eventually(Duration::from_secs(60), "the program was not held up", || async { mark.exists().then_some(()) }).await;
    let length: u64 = (1..=2_000_000_u64).map(|n| n.to_string().len() as u64 + 1).sum();
    let mut late = Terminal::attach(&api, &id, "offset=0").await.unwrap();
    late.until_text("2000000\n").await;
    let told = late.told[0]["lost"].as_u64().unwrap();
    assert_eq!(late.from, told, "what was lost before is told at once");
    assert_eq!(late.offset(), length, "shown and lost are all there was");
    assert!(late.shown.len() as u64 <= length - told);
}

/// Sizes that no terminal has end the attachment by a word of their own, and the session goes on as it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_size_that_no_terminal_has_is_refused_and_the_session_goes_on() {
    let master = Master::start().await;
    let _agent = master.agent("desk").await;
    let api = master.api();
    let id = open(&api, "desk", "stty -echo; echo ready; while read x; do stty size; done; exit 4").await;
    for (cols, rows) in [(0, 0), (0, 24), (80, 0), (65_535, 65_535), (65_535, 24)] {
        let mut terminal = Terminal::attach(&api, &id, "offset=0").await.unwrap();
        terminal.until_text("ready").await;
        terminal.say(json!({ "type": "resize", "cols": cols, "rows": rows })).await;
        terminal.until(|_| false).await;
        assert_eq!(terminal.closed.as_deref(), Some("invalid"), "{cols} x {rows}");
    }
    let mut terminal = Terminal::attach(&api, &id, "offset=0").await.unwrap();
    terminal.say(json!({ "type": "resize", "cols": 1000, "rows": 1000 })).await;
    terminal.send(b"\n").await;
    terminal.until_text("1000 1000").await;
    terminal.send(b"\x04").await;
    assert_eq!(terminal.exit().await["code"], 4);
    // What is typed to a program that is gone goes nowhere, and a new attachment is told.
    terminal.send(b"late\n").await;
    terminal.until(|_| false).await;
    assert_eq!(terminal.closed.as_deref(), Some("done"));
    let late = Terminal::attach(&api, &id, "").await;
    let told = match late {
        Ok(mut late) => late.exit().await["code"].to_string(),
        Err(code) => code,
    };
    assert!(["4", "session_over"].contains(&told.as_str()), "{told}");
}

/// The command line under a real terminal.
#[tokio::test(flavor = "multi_thread")]
async fn vim_top_less_and_a_detached_session_look_right_in_tmux() {
    let master = Master::start().await;
    let agent = master.agent("desk").await;
    let text = agent.folder.path().join("text");
    std::fs::write(&text, (1..=300).map(|n| format!("this is line {n}\n")).collect::<String>()).unwrap();
    let tmux = Tmux::start(&master, agent.folder.path());
    let before = tmux.stty().await;
    tmux.keys("landline shell desk\n");
    tmux.keys("PS1='remo''te> '; cd /\n");
    tmux.shows("remote>").await;
    tmux.keys(&format!("vim -u NONE {}\n", text.display()));
    tmux.shows("this is line 20").await;
    tmux.resize(100, 40);
    tmux.shows("this is line 38").await;
    tmux.keys("Goadded by vim\u{1b}:wq\n");
    eventually(Duration::from_secs(10), "vim wrote the file", || async {
        std::fs::read_to_string(&text).unwrap().ends_with("added by vim\n").then_some(())
    })
    .await;
    tmux.keys(&format!("less {}\n", text.display()));
    tmux.shows("this is line 22").await;
    tmux.keys("G");
    tmux.shows("added by vim").await;
    tmux.resize(90, 30);
    tmux.keys("g");
    tmux.shows("this is line 29").await;
    tmux.keys("q");
    // What is typed while less gives the terminal back is dropped.
    eventually(Duration::from_secs(15), "the new size is known", || async {
        tmux.keys("clear; stty size\n");
        tokio::time::sleep(Duration::from_millis(300)).await;
        tmux.screen().contains("30 90").then_some(())
    })
    .await;
    tmux.keys("top\n");
    tmux.shows("PID USER").await;
    // It reads keys when it is done with its first screen.
    eventually(Duration::from_secs(15), "top ends", || async {
        tmux.keys("q");
        tokio::time::sleep(Duration::from_millis(300)).await;
        tmux.screen().trim_end().lines().last().is_some_and(|line| line.starts_with("remote>")).then_some(())
    })
    .await;
    tmux.keys("\u{15}");
    tmux.keys("clear; echo marker-$((6*7))\n");
    tmux.shows("marker-42").await;
    tmux.keys("\u{1d}");
    tmux.shows("come back with: landline shell desk --attach").await;
    assert_eq!(tmux.stty().await, before, "the terminal is as it was");
    let shells = master.api().get("/shells?running=true").await;
    let id = shells["items"][0]["id"].as_str().unwrap().to_owned();
    tmux.keys(&format!("clear; landline shell desk --attach {id}\n"));
    // What is typed while the history is shown again is dropped, as are the terminal's answers to it.
    eventually(Duration::from_secs(15), "the session takes keys again", || async {
        tmux.keys("clear; echo again-$((6*7))\n");
        tokio::time::sleep(Duration::from_millis(300)).await;
        tmux.screen().contains("again-42").then_some(())
    })
    .await;
    tmux.keys("exit 5\n");
    tmux.shows("bash-").await;
    tmux.keys("echo \"code=$?\"\n");
    tmux.shows("code=5").await;
    assert_eq!(tmux.stty().await, before, "the terminal is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_looks_disturbs_nothing_and_gets_the_terminal_back() {
    let master = Master::start().await;
    let agent = master.agent("desk").await;
    let id = open(&master.api(), "desk", "printf '\\033[?1049h\\033[Hfull screen'; exec sleep 1000").await;
    let tmux = Tmux::start(&master, agent.folder.path());
    let before = tmux.stty().await;
    tmux.keys("clear; echo below-$((6*7))\n");
    tmux.shows("below-42").await;
    for leave in ["\u{1d}", "\u{3}"] {
        tmux.keys(&format!("landline shell desk --attach {id} --watch\n"));
        tmux.shows("full screen").await;
        tmux.keys("typed");
        tmux.keys(leave);
        tmux.shows("below-42").await;
        assert!(!tmux.screen().contains("typed"), "{}", tmux.screen());
    }
    assert_eq!(tmux.stty().await, before, "the terminal is as it was");
    tmux.keys(&format!("clear; landline shell elsewhere --attach {id}; echo \"code=$?\"\n"));
    tmux.shows("code=255").await;
    assert!(tmux.screen().contains("that session is on desk"), "{}", tmux.screen());
}

/// A terminal of its own, with `landline` in PATH and pointed at one master.
struct Tmux {
    socket: std::path::PathBuf,
}

impl Tmux {
    fn start(master: &Master, folder: &std::path::Path) -> Self {
        let tmux = Self { socket: folder.join("tmux") };
        let path = format!("{}:{}", binary("landline").parent().unwrap().display(), std::env::var("PATH").unwrap());
        let mut command = tmux.command();
        command.args(["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "bash --norc --noprofile"]);
        command.env("PATH", path).env("LANDLINE_URL", master.url()).env("LANDLINE_DATA_DIR", master.data());
        assert!(command.env("PS1", "local> ").env("TERM", "xterm-256color").status().unwrap().success());
        tmux
    }

    fn command(&self) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(&self.socket);
        command
    }

    fn keys(&self, keys: &str) {
        let mut command = self.command();
        command.args(["send-keys", "-l", keys.trim_end_matches('\n')]);
        assert!(keys == "\n" || command.status().unwrap().success());
        if keys.ends_with('\n') {
            assert!(self.command().args(["send-keys", "Enter"]).status().unwrap().success());
        }
    }

    fn resize(&self, cols: u16, rows: u16) {
        let (cols, rows) = (cols.to_string(), rows.to_string());
        assert!(self.command().args(["resize-window", "-x", &cols, "-y", &rows]).status().unwrap().success());
    }

    fn screen(&self) -> String {
        let output = self.command().args(["capture-pane", "-p"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    async fn shows(&self, text: &str) {
        let shown = async {
            while !self.screen().contains(text) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let within = tokio::time::timeout(Duration::from_secs(15), shown).await;
        assert!(within.is_ok(), "{text:?} is not on the screen:\n{}", self.screen());
    }

    /// The settings of the local terminal.
    async fn stty(&self) -> String {
        let file = self.socket.with_extension("stty");
        let _ = std::fs::remove_file(&file);
        self.keys(&format!("clear; stty -g > {}\n", file.display()));
        eventually(Duration::from_secs(10), "stty answers", || async {
            std::fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n'))
        })
        .await
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = self.command().arg("kill-server").status();
    }
}
