//! `landline-agent log`: what the master had this machine do, and whether that record is whole. Reads files; needs no agent
//! that runs.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use landline_agent::{
    config::Config,
    logbook::{self, Broken, Head, Kind, Noted, Reader, Shown, Verdict},
};

const LOOK_EVERY: Duration = Duration::from_millis(300);

const EXAMPLES: &str = "\
Examples:
  landline-agent log                          the last hundred lines
  landline-agent log --follow                 and those that come
  landline-agent log --json --last 100000     all of it, as it is kept, to be checked or kept elsewhere
  landline-agent log verify                   exit code 1 if a line was changed, removed or put in
  landline-agent log verify --noted acts:532:4be1…";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Go on with what comes, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
    /// The lines as they are kept: `chain`, `seq`, `previous`, `hash`, `body`.
    #[arg(long)]
    json: bool,
    /// How many of the latest.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    last: u32,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Recompute every hash, and name the first line that does not hold.
    Verify {
        /// A line that an earlier verification printed, as CHAIN:LINE:HASH. Shows also what was cut off at the end.
        #[arg(long, value_name = "CHAIN:LINE:HASH", value_parser = noted)]
        noted: Vec<Noted>,
    },
}

pub(super) fn run(config: &Config, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let dir = logbook::folder(&config.state_dir);
    let cannot = || format!("cannot read {}; was an agent ever here, and are you its user or root?", dir.display());
    if let Some(Command::Verify { noted }) = &arguments.command {
        let mut whole = true;
        for kind in Kind::ALL {
            let of_kind: Vec<_> = noted.iter().filter(|noted| noted.chain == kind).map(Some).collect();
            let each = if of_kind.is_empty() { vec![None] } else { of_kind };
            for noted in each {
                whole &= told(kind, logbook::verify(&dir, kind, noted).with_context(cannot)?, noted);
            }
        }
        return Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    match show(&dir, arguments) {
        // Whoever read has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        shown => shown.map(|()| ExitCode::SUCCESS).with_context(cannot),
    }
}

fn show(dir: &Path, arguments: &Arguments) -> io::Result<()> {
    let mut reader = Reader::new(dir);
    let mut last = arguments.last as usize;
    loop {
        let mut out = io::stdout().lock();
        for shown in reader.news(last)? {
            let line = if arguments.json { shown.line.text() } else { row(&shown) };
            out.write_all(line.as_bytes())?;
        }
        out.flush()?;
        if !arguments.follow {
            return Ok(());
        }
        drop(out);
        last = usize::MAX;
        std::thread::sleep(LOOK_EVERY);
    }
}

fn told(kind: Kind, verdict: Verdict, noted: Option<&Noted>) -> bool {
    let word = kind.word();
    match verdict {
        Verdict::Empty => println!("{word}: no line yet"),
        Verdict::Whole { first, last, hash, unfinished } => {
            println!("{word}: lines {first} to {last} hold; note elsewhere: {word}:{last}:{hash}");
            if unfinished > 0 {
                println!("{word}: {unfinished} bytes of a line that is not finished stand behind it");
            }
            if let Some(noted) = noted.filter(|noted| noted.head.seq < first) {
                println!("{word}: line {} is not kept any more, so what was noted of it says nothing", noted.head.seq);
            }
        }
        Verdict::Broken(Broken { seq, file, line, why }) => {
            println!("{word}: BROKEN at line {seq} ({}:{line}): {why}", file.display());
            return false;
        }
    }
    true
}

fn noted(text: &str) -> Result<Noted, String> {
    let mut parts = text.splitn(3, ':');
    let mut part = || parts.next().unwrap_or_default();
    let (chain, seq, hash) = (part(), part(), part());
    let chain = Kind::ALL.into_iter().find(|kind| kind.word() == chain);
    match (chain, seq.parse(), hash.len()) {
        (Some(chain), Ok(seq), 64) => Ok(Noted { chain, head: Head { seq, hash: hash.to_owned() } }),
        _ => Err("write CHAIN:LINE:HASH as `log verify` prints it".into()),
    }
}

/// One line for people. What the master wrote cannot drive a terminal.
fn row(shown: &Shown) -> String {
    let entry = &shown.entry;
    let at = entry.at.strftime("%Y-%m-%d %H:%M:%S%.3fZ");
    let id = entry.id.get(..8).unwrap_or("-");
    let mut text = format!("{at}  {:<12}  {id:<8}", plain(&entry.what));
    for part in [&entry.target, &entry.result, &entry.detail, &entry.verdict] {
        if !part.is_empty() {
            text.push_str("  ");
            text.push_str(&plain(part));
        }
    }
    text.push('\n');
    text
}

/// Control characters, marks of direction and invisible ones written out.
fn plain(text: &str) -> String {
    let dangerous = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    text.chars().flat_map(|c| if dangerous(c) { c.escape_default().collect() } else { vec![c] }).collect()
}
