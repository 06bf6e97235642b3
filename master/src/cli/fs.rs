//! `landline fs …`: files on an agent, one command per operation. Content of any size goes through `landline cp`.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
    process::ExitCode,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::{Args, Subcommand};
use reqwest::Method;

use super::{
    Context, UsageError,
    client::{CallError, segment},
    end::{End, Remote},
    output::{self, Format, or_dash, plain},
};
use crate::api::dto::file::{Algorithm, FileAnswer, FileCall, FileEntry, Name};

/// Entries asked for at once.
const PAGE: u32 = 1000;
/// Content that goes with a call, bytes.
const CONTENT_MAX: u64 = 1 << 20;

#[derive(Debug, Args)]
pub(super) struct Fs {
    #[command(subcommand)]
    command: Command,
}

/// Places are written AGENT:/PATH.
#[derive(Debug, Subcommand)]
enum Command {
    /// List a folder
    #[command(after_help = "Example:\n  landline fs ls home-1:/var/log")]
    Ls { place: OsString },
    /// Show what a file or folder is
    #[command(after_help = "Example:\n  landline fs stat home-1:/etc/hosts")]
    Stat {
        place: OsString,
        /// Of a link itself
        #[arg(short = 'P', long)]
        no_follow: bool,
    },
    /// Print a file
    #[command(after_help = "Example:\n  landline fs cat home-1:/etc/hosts")]
    Cat { place: OsString },
    /// Write standard input, at most 1 MiB, to a file
    #[command(after_help = "Example:\n  echo hello | landline fs write home-1:/tmp/hello")]
    Write {
        place: OsString,
        /// Permission bits, octal
        #[arg(long)]
        mode: Option<String>,
    },
    /// Remove files, and with -r folders
    #[command(after_help = "Example:\n  landline fs rm -r home-1:/tmp/old")]
    Rm {
        /// Folders with everything in them
        #[arg(short = 'r', long)]
        recursive: bool,
        #[arg(required = true)]
        places: Vec<OsString>,
    },
    /// Move or rename
    #[command(after_help = "Example:\n  landline fs mv home-1:/tmp/a home-1:/tmp/b")]
    Mv {
        /// AGENT:/PATH
        from: OsString,
        /// The whole new path on the same agent
        to: OsString,
        /// Replace what is there
        #[arg(short = 'f', long)]
        force: bool,
    },
    /// Copy within one agent
    #[command(after_help = "Example:\n  landline fs cp -r home-1:/srv/www home-1:/srv/www.old")]
    Cp {
        /// Folders with everything in them
        #[arg(short = 'r', long)]
        recursive: bool,
        /// AGENT:/PATH
        from: OsString,
        /// The whole path of the copy, on the same agent
        to: OsString,
        /// Replace what is there
        #[arg(short = 'f', long)]
        force: bool,
    },
    /// Make a folder
    #[command(after_help = "Example:\n  landline fs mkdir -p home-1:/srv/www/img")]
    Mkdir {
        /// With what is missing above it
        #[arg(short = 'p', long)]
        parents: bool,
        place: OsString,
    },
    /// Set permission bits
    #[command(after_help = "Example:\n  landline fs chmod 640 home-1:/etc/app.conf")]
    Chmod { mode: String, place: OsString },
    /// Set owner and group
    #[command(
        after_help = "Examples:\n  landline fs chown www-data:www-data home-1:/srv/www\n  landline fs chown :adm home-1:/var/log/app"
    )]
    Chown {
        /// USER, USER:GROUP or :GROUP
        owner: String,
        place: OsString,
    },
    /// Make a symbolic link
    #[command(after_help = "Example:\n  landline fs ln ../releases/7 home-1:/srv/current")]
    Ln {
        /// What the link says
        target: OsString,
        place: OsString,
    },
    /// Print what a link says
    #[command(after_help = "Example:\n  landline fs readlink home-1:/srv/current")]
    Readlink { place: OsString },
    /// Set the time of the last change to now; make an empty file where none is
    #[command(after_help = "Example:\n  landline fs touch home-1:/tmp/flag")]
    Touch { place: OsString },
    /// Print a file's checksum
    #[command(after_help = "Example:\n  landline fs hash --algorithm sha256 home-1:/boot/vmlinuz")]
    Hash {
        #[arg(long, value_enum, default_value_t)]
        algorithm: Algorithm,
        place: OsString,
    },
    /// Tell a file's media type
    #[command(name = "type", after_help = "Example:\n  landline fs type home-1:/tmp/upload")]
    Kind { place: OsString },
    /// Print what files and folders take on the disk
    #[command(after_help = "Example:\n  landline fs du home-1:/var/log")]
    Du {
        #[arg(required = true)]
        places: Vec<OsString>,
    },
    /// Find files below a folder by their names
    #[command(
        after_help = "Examples:\n  landline fs find home-1:/etc '*.conf'\n  landline fs find home-1:/srv 'www/*/index.html'"
    )]
    Find { place: OsString, pattern: String },
    /// Find lines by a regular expression
    #[command(after_help = "Example:\n  landline fs grep -i 'error|fail' home-1:/var/log")]
    Grep {
        pattern: String,
        place: OsString,
        #[arg(short = 'i', long)]
        ignore_case: bool,
    },
    /// Make a zip archive
    #[command(after_help = "Example:\n  landline fs zip home-1:/tmp/www.zip home-1:/srv/www")]
    Zip(Pack),
    /// Make a tar archive; compressed if its name ends in .gz or .tgz
    #[command(after_help = "Example:\n  landline fs tar home-1:/tmp/www.tgz home-1:/srv/www home-1:/etc/nginx")]
    Tar(Pack),
    /// Compress one file
    #[command(after_help = "Example:\n  landline fs gzip home-1:/tmp/log.gz home-1:/var/log/app.log")]
    Gzip(Pack),
    /// Extract a zip archive into a folder
    #[command(after_help = "Example:\n  landline fs unzip home-1:/tmp/www.zip home-1:/srv")]
    Unzip(Unpack),
    /// Extract a tar archive into a folder
    #[command(after_help = "Example:\n  landline fs untar home-1:/tmp/www.tgz home-1:/srv")]
    Untar(Unpack),
    /// Decompress one file
    #[command(after_help = "Example:\n  landline fs gunzip home-1:/tmp/log.gz home-1:/tmp/log")]
    Gunzip(Unpack),
}

#[derive(Debug, Args)]
struct Pack {
    archive: OsString,
    #[arg(required = true)]
    sources: Vec<OsString>,
    /// Replace an archive that is there
    #[arg(short = 'f', long)]
    force: bool,
}

#[derive(Debug, Args)]
struct Unpack {
    archive: OsString,
    to: OsString,
    /// Replace files that are there
    #[arg(short = 'f', long)]
    force: bool,
}

impl Fs {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<ExitCode> {
        let c = &context;
        match self.command {
            Command::Ls { place } => {
                let entries = list(c, &remote(&place)?).await?;
                output::print(c.format, &entries, |entries| table(entries))?;
            }
            Command::Stat { place, no_follow } => {
                let place = remote(&place)?;
                let call = FileCall { follow: Some(!no_follow), ..at(&place) };
                let entries = ask(c, &place, "stat", &call).await?.entries.unwrap_or_default();
                output::print(c.format, &entries, |entries| table(entries))?;
            }
            Command::Cat { place } => return cat(c, &remote(&place)?).await,
            Command::Write { place, mode } => {
                let mut content = Vec::new();
                io::stdin().lock().take(CONTENT_MAX + 1).read_to_end(&mut content)?;
                if content.len() as u64 > CONTENT_MAX {
                    return Err(UsageError("more than 1 MiB of input: use landline cp".into()).into());
                }
                let place = remote(&place)?;
                let call = FileCall { content_base64: Some(STANDARD.encode(content)), mode, ..at(&place) };
                done(c, &ask(c, &place, "write", &call).await?)?;
            }
            Command::Rm { recursive, places } => {
                for place in &places {
                    let place = remote(place)?;
                    let call = FileCall { recursive: Some(recursive), ..at(&place) };
                    done(c, &ask(c, &place, "remove", &call).await?)?;
                }
            }
            Command::Mv { from, to, force } => two(c, "rename", &from, &to, |call| call.replace = Some(force)).await?,
            Command::Cp { recursive, from, to, force } => {
                let change = |call: &mut FileCall| (call.recursive, call.replace) = (Some(recursive), Some(force));
                two(c, "copy", &from, &to, change).await?;
            }
            Command::Mkdir { parents, place } => one(c, "mkdir", &place, |call| call.parents = Some(parents)).await?,
            Command::Chmod { mode, place } => one(c, "chmod", &place, |call| call.mode = Some(mode)).await?,
            Command::Chown { owner, place } => {
                let (user, group) = owner.split_once(':').unwrap_or((&owner, ""));
                let some = |name: &str| (!name.is_empty()).then(|| name.to_owned());
                one(c, "chown", &place, |call| (call.user, call.group) = (some(user), some(group))).await?;
            }
            Command::Ln { target, place } => {
                let target = STANDARD.encode(target.as_bytes());
                one(c, "symlink", &place, |call| call.target_base64 = Some(target)).await?;
            }
            Command::Readlink { place } => {
                let place = remote(&place)?;
                let answer = ask(c, &place, "readlink", &at(&place)).await?;
                output::print(c.format, &answer, |answer| shown(&answer.target.clone().unwrap_or_default()))?;
            }
            Command::Touch { place } => one(c, "touch", &place, |_| {}).await?,
            Command::Hash { algorithm, place } => {
                let place = remote(&place)?;
                let call = FileCall { algorithm: Some(algorithm), ..at(&place) };
                let answer = ask(c, &place, "checksum", &call).await?;
                output::print(c.format, &answer, |answer| format!("{}  {place}", or_dash(answer.hash.as_ref())))?;
            }
            Command::Kind { place } => {
                let place = remote(&place)?;
                let answer = ask(c, &place, "type", &at(&place)).await?;
                output::print(c.format, &answer, |answer| or_dash(answer.mime.as_ref()))?;
            }
            Command::Du { places } => {
                for place in &places {
                    let place = remote(place)?;
                    let answer = ask(c, &place, "du", &at(&place)).await?;
                    let text = |answer: &FileAnswer| {
                        format!("{:>10}  {:>7} files  {place}", output::bytes(answer.bytes), answer.files)
                    };
                    output::print(c.format, &answer, text)?;
                    skipped(&answer);
                }
            }
            Command::Find { place, pattern } => {
                let place = remote(&place)?;
                let call = FileCall { pattern: Some(pattern), limit: Some(10 * PAGE), ..at(&place) };
                let answer = ask(c, &place, "search", &call).await?;
                let names = |answer: &FileAnswer| {
                    let entries = answer.entries.iter().flatten();
                    entries.map(|entry| shown(&entry.name)).collect::<Vec<_>>().join("\n")
                };
                some(c, &answer, names)?;
            }
            Command::Grep { pattern, place, ignore_case } => {
                let place = remote(&place)?;
                let limit = Some(10 * PAGE);
                let call = FileCall { pattern: Some(pattern), ignore_case: Some(ignore_case), limit, ..at(&place) };
                let answer = ask(c, &place, "grep", &call).await?;
                let own = place.name().map(|name| output::shown(name.as_ref())).unwrap_or_default();
                let lines = |answer: &FileAnswer| {
                    let lines = answer.lines.iter().flatten();
                    let line = |line: &crate::api::dto::file::FileLine| {
                        // A file that was asked for by itself has no name below itself.
                        let name = Some(shown(&line.name)).filter(|name| !name.is_empty());
                        format!("{}:{}:{}", name.as_ref().unwrap_or(&own), line.number, plain(&line.text))
                    };
                    lines.map(line).collect::<Vec<_>>().join("\n")
                };
                some(c, &answer, lines)?;
            }
            Command::Zip(pack) => packed(c, "zip", &pack).await?,
            Command::Tar(pack) => packed(c, "tar", &pack).await?,
            Command::Gzip(pack) => packed(c, "gzip", &pack).await?,
            Command::Unzip(unpack) => unpacked(c, "unzip", &unpack).await?,
            Command::Untar(unpack) => unpacked(c, "untar", &unpack).await?,
            Command::Gunzip(unpack) => unpacked(c, "gunzip", &unpack).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn remote(place: &OsString) -> Result<Remote, UsageError> {
    match End::parse(place)? {
        End::Remote(remote) => Ok(remote),
        End::Local(path) => Err(UsageError(format!("{}: name a place on an agent as AGENT:/PATH", path.display()))),
    }
}

/// A call about one place.
pub(super) fn at(place: &Remote) -> FileCall {
    match place.query() {
        ("path", path) => FileCall { path: Some(path), ..FileCall::default() },
        (_, encoded) => FileCall { path_base64: Some(encoded), ..FileCall::default() },
    }
}

/// Does one operation, however long it takes: an agent that falls silent ends it.
pub(super) async fn ask(
    context: &Context,
    place: &Remote,
    operation: &str,
    call: &FileCall,
) -> Result<FileAnswer, CallError> {
    let path = format!("/agents/{}/files/{operation}", segment(&place.agent));
    let response = context.client.send(context.client.request(Method::POST, &path).json(call)).await?;
    let status = response.status();
    let body = response.bytes().await.map_err(|error| context.client.cut(&error))?;
    serde_json::from_slice(&body).map_err(|_| CallError::Foreign { url: context.client.url.clone(), status })
}

async fn one(
    context: &Context,
    operation: &str,
    place: &OsString,
    change: impl FnOnce(&mut FileCall),
) -> anyhow::Result<()> {
    let place = remote(place)?;
    let mut call = at(&place);
    change(&mut call);
    done(context, &ask(context, &place, operation, &call).await?)
}

async fn two(
    context: &Context,
    operation: &str,
    from: &OsString,
    to: &OsString,
    change: impl FnOnce(&mut FileCall),
) -> anyhow::Result<()> {
    let (from, to) = (remote(from)?, remote(to)?);
    if from.agent != to.agent {
        return Err(UsageError("both places are on one agent; from one to another use landline cp twice".into()).into());
    }
    let mut call = at(&from);
    (call.to, call.to_base64) = spelled(&to);
    change(&mut call);
    done(context, &ask(context, &from, operation, &call).await?)
}

fn spelled(place: &Remote) -> (Option<String>, Option<String>) {
    match place.query() {
        ("path", path) => (Some(path), None),
        (_, encoded) => (None, Some(encoded)),
    }
}

async fn packed(context: &Context, operation: &str, pack: &Pack) -> anyhow::Result<()> {
    let archive = remote(&pack.archive)?;
    let sources = pack.sources.iter().map(remote).collect::<Result<Vec<_>, _>>()?;
    if sources.iter().any(|source| source.agent != archive.agent) {
        return Err(UsageError("the archive and what goes into it are on one agent".into()).into());
    }
    let (to, to_base64) = spelled(&archive);
    let text = |source: &Remote| {
        let text = String::from_utf8(source.path.clone());
        text.map_err(|_| UsageError(format!("{source} is no text; name the folder above it")))
    };
    let paths = sources.iter().map(text).collect::<Result<Vec<_>, _>>()?;
    let call = FileCall { paths: Some(paths), to, to_base64, replace: Some(pack.force), ..FileCall::default() };
    done(context, &ask(context, &archive, operation, &call).await?)
}

async fn unpacked(context: &Context, operation: &str, unpack: &Unpack) -> anyhow::Result<()> {
    two(context, operation, &unpack.archive, &unpack.to, |call| call.replace = Some(unpack.force)).await
}

async fn list(context: &Context, place: &Remote) -> Result<Vec<FileEntry>, CallError> {
    let mut entries: Vec<FileEntry> = Vec::new();
    loop {
        let mut call = FileCall { limit: Some(PAGE), ..at(place) };
        if let Some(last) = entries.last() {
            call.after_base64 = Some(STANDARD.encode(last.name.bytes().unwrap_or_default()));
        }
        let answer = ask(context, place, "list", &call).await?;
        let page = answer.entries.unwrap_or_default();
        let over = !answer.more || page.is_empty();
        entries.extend(page);
        if over {
            return Ok(entries);
        }
    }
}

async fn cat(context: &Context, place: &Remote) -> anyhow::Result<ExitCode> {
    let path = format!("/agents/{}/files/content", segment(&place.agent));
    let request = context.client.request(Method::GET, &path).query(&[place.query()]);
    let mut response = context.client.send(request).await?;
    while let Some(piece) = response.chunk().await.map_err(|error| context.client.cut(&error))? {
        match io::stdout().lock().write_all(&piece) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            other => other?,
        }
    }
    io::stdout().lock().flush()?;
    Ok(ExitCode::SUCCESS)
}

fn table(entries: &[FileEntry]) -> String {
    let now = output::now_ms();
    let rows = entries.iter().map(|entry| {
        let kind = serde_json::to_value(entry.kind).ok().and_then(|kind| Some(kind.as_str()?.to_owned()));
        let time = crate::api::dto::Time::from_ms(entry.modified_ns / 1_000_000);
        let target = entry.target.as_ref().map_or_else(String::new, |target| format!(" -> {}", target.name));
        vec![
            entry.mode.clone(),
            or_dash(kind),
            entry.user.clone().unwrap_or_else(|| entry.uid.to_string()),
            output::bytes(entry.size),
            output::relative(Some(&time), now),
            format!("{}{target}", entry.name.name),
        ]
    });
    output::table(&["MODE", "KIND", "OWNER", "SIZE", "CHANGED", "NAME"], rows)
}

fn shown(name: &Name) -> String {
    plain(&name.name)
}

/// What was found, and that there is more.
fn some(context: &Context, answer: &FileAnswer, text: impl FnOnce(&FileAnswer) -> String) -> anyhow::Result<()> {
    let text = text(answer);
    if context.format == Format::Json || !text.is_empty() {
        output::print(context.format, answer, |_| text)?;
    }
    skipped(answer);
    if answer.more {
        eprintln!("landline: there is more; narrow the folder or the pattern");
    }
    Ok(())
}

/// A change says nothing but as JSON, and what it had to leave out.
fn done(context: &Context, answer: &FileAnswer) -> anyhow::Result<()> {
    if context.format == Format::Json {
        output::print(context.format, answer, |_| String::new())?;
    }
    skipped(answer);
    Ok(())
}

fn skipped(answer: &FileAnswer) {
    if answer.skipped > 0 {
        eprintln!("landline: {} left out: unreadable, or neither files nor folders", answer.skipped);
    }
}
