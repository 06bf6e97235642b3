//! `landline exec` and `landline execs` on one machine: input and output of any size, and what goes away meanwhile.

use std::{
    io::Write,
    process::Stdio,
    time::{Duration, Instant},
};

use landline_tests::{
    cli::{Cli, landline, output},
    master::Master,
    wait::{eventually, until},
};
use rustix::process::Signal;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);

fn alive(pid: &str) -> bool {
    std::path::Path::new(&format!("/proc/{}", pid.trim())).exists()
}

#[tokio::test(flavor = "multi_thread")]
async fn input_is_streamed_live_and_of_any_size() {
    let master = Master::start().await;
    let _agent = master.agent("desk").await;
    let mut bytes = vec![0; 20 << 20];
    blake3::Hasher::new().update(b"input").finalize_xof().fill(&mut bytes);
    let mut cli = Cli::start(landline(&master, &["exec", "desk", "-i", "--", "cat"]));
    let mut stdin = cli.stdin();
    // Live: what was typed comes back while the input is still open.
    stdin.write_all(b"first").unwrap();
    cli.prints("first", SOON).await;
    let rest = bytes.clone();
    let writer = std::thread::spawn(move || {
        stdin.write_all(&rest).unwrap();
        drop(stdin);
    });
    assert_eq!(cli.exit(Duration::from_secs(60)).await, Some(0), "{}", cli.stderr());
    writer.join().unwrap();
    let came = cli.stdout();
    assert_eq!(came.len(), bytes.len() + 5);
    assert_eq!(blake3::hash(&came[5..]), blake3::hash(&bytes));

    // An input that is empty, and one that ends within a line.
    for text in ["", "no newline"] {
        let mut cli = Cli::start(landline(&master, &["exec", "desk", "-i", "--", "cat"]));
        cli.stdin().write_all(text.as_bytes()).unwrap();
        assert_eq!((cli.exit(SOON).await, cli.printed().as_str()), (Some(0), text));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_want_its_input_is_no_failure() {
    let master = Master::start().await;
    let _agent = master.agent("desk").await;
    // More than every buffer on the way holds, and an input that never ends.
    let mut cli = Cli::start(landline(&master, &["exec", "desk", "-i", "--", "head", "-c", "5"]));
    let mut stdin = cli.stdin();
    let writer = std::thread::spawn(move || {
        let piece = [b'x'; 64 * 1024];
        while stdin.write_all(&piece).is_ok() {}
    });
    assert_eq!((cli.exit(SOON).await, cli.printed().as_str()), (Some(0), "xxxxx"), "{}", cli.stderr());
    writer.join().unwrap();
    // Nothing was typed, and nothing ever is.
    let mut cli = Cli::start(landline(&master, &["exec", "desk", "-i", "--", "sh", "-c", "exit 4"]));
    let _stdin = cli.stdin();
    assert_eq!(cli.exit(SOON).await, Some(4), "{}", cli.stderr());
    assert_eq!(cli.stderr(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_comes_back_by_itself_after_a_killed_master_without_gap_or_repeat() {
    let mut master = Master::start().await;
    let _agent = master.agent("desk").await;
    let line = "while read x; do echo $x; done; echo over >&2; exit 9";
    let mut cli = Cli::start(landline(&master, &["exec", "desk", "-i", "--shell", line]));
    let mut stdin = cli.stdin();
    let writer = std::thread::spawn(move || {
        for number in 1..=400 {
            writeln!(stdin, "{number}").unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    cli.prints("\n100\n", SOON).await;
    master.kill();
    eventually(SOON, "it says that the master is gone", || async {
        cli.stderr().contains("waiting for the master").then_some(())
    })
    .await;
    master.run().await;
    assert_eq!(cli.exit(Duration::from_secs(60)).await, Some(9), "{}", cli.stderr());
    writer.join().unwrap();
    let expected: String = (1..=400).map(|n| format!("{n}\n")).collect();
    assert_eq!(cli.printed(), expected, "each number once");
    assert!(cli.stderr().contains("the master is back") && cli.stderr().contains("over\n"), "{}", cli.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_cancels_also_while_nobody_reads_the_output() {
    let master = Master::start().await;
    let agent = master.agent("desk").await;
    let mark = agent.folder.path().join("mark");
    let flood = format!("echo $$ > {}; exec yes", mark.display());
    // Its output goes into a pipe that nobody reads: it is full within a moment.
    let mut command = landline(&master, &["exec", "desk", "--shell", &flood]);
    let mut stuck = command.stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null()).spawn().unwrap();
    let pid = eventually(SOON, "it runs", || async {
        std::fs::read_to_string(&mark).ok().filter(|text| text.ends_with('\n'))
    })
    .await;
    let stopped = Instant::now();
    rustix::process::kill_process(rustix::process::Pid::from_child(&stuck), Signal::INT).unwrap();
    until(Duration::from_secs(5), "nothing is left running", || !alive(&pid)).await;
    println!("the flood was gone after {:?}", stopped.elapsed());
    let mut status = None;
    until(SOON, "landline ends", || {
        status = stuck.try_wait().unwrap();
        status.is_some()
    })
    .await;
    assert_eq!(status.unwrap().code(), Some(130));

    // Behind `| head` nobody reads any more: the program ends, too.
    std::fs::remove_file(&mark).unwrap();
    let mut command = landline(&master, &["exec", "desk", "--shell", &flood]);
    let mut headed = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let pid = eventually(SOON, "it runs", || async {
        std::fs::read_to_string(&mark).ok().filter(|text| text.ends_with('\n'))
    })
    .await;
    drop(headed.stdout.take());
    until(SOON, "nothing is left running", || !alive(&pid)).await;
    let mut status = None;
    until(SOON, "landline ends", || {
        status = headed.try_wait().unwrap();
        status.is_some()
    })
    .await;
    assert_eq!(status.unwrap().code(), Some(141));
}

#[tokio::test(flavor = "multi_thread")]
async fn execs_are_listed_shown_read_again_and_cancelled() {
    let master = Master::start().await;
    let _agent = master.agent("desk").await;
    let mut cli =
        Cli::start(landline(&master, &["exec", "desk", "--shell", "seq 1 1000; echo ready; sleep 600; exit 5"]));
    cli.prints("ready", SOON).await;
    let rows = output(landline(&master, &["execs", "ls", "-o", "json"])).await;
    let rows: Value = serde_json::from_slice(&rows.stdout).unwrap();
    let id = rows[0]["id"].as_str().unwrap().to_owned();
    // The command itself dies: the program does not notice.
    cli.signal(Signal::KILL);
    assert_eq!(cli.exit(SOON).await, None);
    let shown = String::from_utf8(output(landline(&master, &["execs", "show", &id])).await.stdout).unwrap();
    assert!(shown.contains("state     runs") && shown.contains("seq 1 1000"), "{shown}");
    let mut reader = Cli::start(landline(&master, &["execs", "output", &id]));
    reader.prints("1\n2\n3\n", SOON).await;
    reader.prints("ready\n", SOON).await;
    reader.signal(Signal::INT);
    assert_eq!(reader.exit(SOON).await, Some(130));
    let table = String::from_utf8(output(landline(&master, &["execs", "ls"])).await.stdout).unwrap();
    assert!(table.contains(&id) && table.contains("runs"), "{table}");

    let mut reader = Cli::start(landline(&master, &["execs", "output", &id, "--offset", "3893"]));
    reader.prints("ready\n", SOON).await;
    assert_eq!(reader.printed(), "ready\n");
    assert!(output(landline(&master, &["execs", "cancel", &id])).await.status.success());
    assert_eq!(reader.exit(SOON).await, Some(255), "{}", reader.stderr());
    assert!(reader.stderr().contains("killed by the agent: cancelled"), "{}", reader.stderr());
    let again = output(landline(&master, &["execs", "cancel", &id])).await;
    assert_eq!(again.status.code(), Some(1), "{}", String::from_utf8_lossy(&again.stderr));
    let row = master.api().get(&format!("/execs/{id}")).await;
    assert_eq!(row["end_reason"], json!("cancelled"));

    // Beyond the bound output is dropped, which is said.
    let cut = output(landline(&master, &["exec", "desk", "--output-max", "5", "--", "echo", "0123456789"])).await;
    assert_eq!((cut.status.code(), cut.stdout.as_slice()), (Some(0), &b"01234"[..]));
    assert!(String::from_utf8_lossy(&cut.stderr).contains("--output-max"));
}

/// With `-t` it is a terminal there, also for a program that is gone before the connection has settled.
#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_for_a_program_that_ends_at_once() {
    let master = Master::start().await;
    let _agent = master.agent("desk").await;
    for _ in 0..20 {
        let line = "test -t 0 && test -t 1 && echo terminal; exit 7";
        let run = output(landline(&master, &["exec", "desk", "-t", "--", "sh", "-c", line])).await;
        let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        assert_eq!((run.status.code(), out.as_ref(), err.as_ref()), (Some(7), "terminal\r\n", ""));
    }
}
