//! Making archives. The archive appears whole, beside nothing that it holds itself.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, BufWriter, Read, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use proto::{
    code::Code,
    file::{ArchiveFormat, FileDone, FileKind, FilePath},
};
use rustix::fs::{OFlags, Stat, readlinkat};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::{
    Access, FileError, Links, Place, Roots,
    out::Out,
    place::open_plain,
    tree::{self, Found, Met},
};

pub(super) fn pack(
    roots: &Roots,
    from: &[FilePath],
    to: &FilePath,
    format: ArchiveFormat,
    replace: bool,
    out: &Out,
) -> Result<FileDone, FileError> {
    let to = roots.locate(to, Access::Write, Links::Follow)?;
    if !replace && to.stat().is_ok() {
        return Err(FileError::new(Code::EXISTS, "something is there already").at(to.path()));
    }
    let sources = from.iter().map(|path| roots.locate(path, Access::Read, Links::Follow));
    let sources: Vec<_> = sources.collect::<Result<_, _>>()?;
    let temp = to.create_fresh().map_err(|error| error.at(to.path()))?;
    let file = BufWriter::new(temp.file.try_clone()?);
    let done = match format {
        ArchiveFormat::Gzip => gzip(&sources, file, out)?,
        ArchiveFormat::Tar => {
            let (done, mut file) = tar(&sources, file, out)?;
            file.flush()?;
            done
        }
        ArchiveFormat::TarGzip => {
            let (done, encoder) = tar(&sources, GzEncoder::new(file, Compression::default()), out)?;
            encoder.finish()?.flush()?;
            done
        }
        ArchiveFormat::Zip => {
            let mut writer = Zip(ZipWriter::new(file));
            let done = each(&sources, out, &mut writer)?;
            writer.0.finish().map_err(bad_zip)?.flush()?;
            done
        }
    };
    temp.commit(None, replace).map_err(|error| error.at(to.path()))?;
    Ok(done)
}

fn gzip(sources: &[Place], file: BufWriter<File>, out: &Out) -> Result<FileDone, FileError> {
    let mut done = FileDone::default();
    let mut encoder = GzEncoder::new(file, Compression::default());
    for source in sources {
        let mut read = source.open_read().map_err(|error| error.at(source.path()))?;
        done.bytes += io::copy(&mut Watched { inner: &mut read, out }, &mut encoder)?;
        done.files += 1;
    }
    encoder.finish()?.flush()?;
    Ok(done)
}

fn tar<W: Write>(sources: &[Place], to: W, out: &Out) -> Result<(FileDone, W), FileError> {
    let mut writer = Tar(tar::Builder::new(to));
    let done = each(sources, out, &mut writer)?;
    Ok((done, writer.0.into_inner()?))
}

/// An archive being made.
trait Archive {
    fn folder(&mut self, name: &Path, stat: &Stat) -> Result<(), FileError>;
    fn link(&mut self, name: &Path, target: &Path, stat: &Stat) -> Result<(), FileError>;
    /// Exactly `stat.st_size` bytes.
    fn file(&mut self, name: &Path, stat: &Stat, content: &mut dyn Read) -> Result<(), FileError>;
}

/// Puts each source under its own name, with all below it.
fn each(sources: &[Place], out: &Out, archive: &mut dyn Archive) -> Result<FileDone, FileError> {
    let mut done = FileDone::default();
    for source in sources {
        let at = |error: FileError| error.at(source.path());
        let stat = source.stat().map_err(at)?;
        let name = source.path().file_name().map(PathBuf::from);
        if tree::kind(&stat) != FileKind::Folder {
            let name = name.unwrap_or_default();
            let mut file = source.open_read().map_err(at)?;
            content(&mut file, &name, &stat, out, archive, &mut done).map_err(at)?;
            continue;
        }
        // The root itself has no name: what is in it stands at the top.
        let prefix = name.unwrap_or_default();
        let top = source.open_dir().map_err(at)?;
        if prefix != Path::new("") {
            archive.folder(&prefix, &stat)?;
            done.files += 1;
        }
        tree::walk(&top, source.sealed(), &mut |met| {
            out.go_on()?;
            match met {
                Met::Found(found) => one(&found, &prefix.join(found.path), out, archive, &mut done),
                Met::Left(_) => Ok(()),
                Met::Unreadable(..) => {
                    done.skipped += 1;
                    Ok(())
                }
            }
        })
        .map_err(at)?;
    }
    Ok(done)
}

fn one(
    found: &Found<'_>,
    name: &Path,
    out: &Out,
    archive: &mut dyn Archive,
    done: &mut FileDone,
) -> Result<(), FileError> {
    match tree::kind(found.stat) {
        FileKind::Folder => archive.folder(name, found.stat)?,
        FileKind::Link => {
            let target = readlinkat(found.dir, found.name, Vec::new())?;
            archive.link(name, Path::new(OsStr::from_bytes(target.as_bytes())), found.stat)?;
        }
        FileKind::File => match open_plain(found.dir, found.name, OFlags::RDONLY) {
            Ok(mut file) => return content(&mut file, name, found.stat, out, archive, done),
            Err(_) => {
                done.skipped += 1;
                return Ok(());
            }
        },
        FileKind::Pipe | FileKind::Socket | FileKind::Device => {
            done.skipped += 1;
            return Ok(());
        }
    }
    done.files += 1;
    Ok(())
}

fn content(
    file: &mut File,
    name: &Path,
    stat: &Stat,
    out: &Out,
    archive: &mut dyn Archive,
    done: &mut FileDone,
) -> Result<(), FileError> {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    // One that grows ends where it ended when it was looked at; one that shrinks is filled up.
    let mut exact = Watched { inner: file, out }.chain(io::repeat(0)).take(size);
    archive.file(name, stat, &mut exact)?;
    done.files += 1;
    done.bytes += size;
    Ok(())
}

/// Reads on only while somebody waits for the archive.
struct Watched<'a> {
    inner: &'a mut File,
    out: &'a Out,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.out.go_on()?;
        self.inner.read(buffer)
    }
}

struct Tar<W: Write>(tar::Builder<W>);

impl<W: Write> Tar<W> {
    fn header(stat: &Stat, kind: tar::EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(stat.st_mode & 0o777);
        header.set_uid(stat.st_uid.into());
        header.set_gid(stat.st_gid.into());
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        header.set_size(size);
        header
    }
}

impl<W: Write> Archive for Tar<W> {
    fn folder(&mut self, name: &Path, stat: &Stat) -> Result<(), FileError> {
        let mut header = Self::header(stat, tar::EntryType::Directory, 0);
        Ok(self.0.append_data(&mut header, name, io::empty())?)
    }

    fn link(&mut self, name: &Path, target: &Path, stat: &Stat) -> Result<(), FileError> {
        let mut header = Self::header(stat, tar::EntryType::Symlink, 0);
        Ok(self.0.append_link(&mut header, name, target)?)
    }

    fn file(&mut self, name: &Path, stat: &Stat, content: &mut dyn Read) -> Result<(), FileError> {
        let mut header = Self::header(stat, tar::EntryType::Regular, u64::try_from(stat.st_size).unwrap_or(0));
        Ok(self.0.append_data(&mut header, name, content)?)
    }
}

struct Zip(ZipWriter<BufWriter<File>>);

impl Zip {
    fn options(stat: &Stat) -> SimpleFileOptions {
        let large = stat.st_size >= i64::from(u32::MAX);
        SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .unix_permissions(stat.st_mode & 0o777)
            .large_file(large)
    }
}

impl Archive for Zip {
    fn folder(&mut self, name: &Path, stat: &Stat) -> Result<(), FileError> {
        self.0.add_directory(text(name)?, Self::options(stat)).map_err(bad_zip)
    }

    fn link(&mut self, name: &Path, target: &Path, stat: &Stat) -> Result<(), FileError> {
        self.0.add_symlink(text(name)?, text(target)?, Self::options(stat)).map_err(bad_zip)
    }

    fn file(&mut self, name: &Path, stat: &Stat, content: &mut dyn Read) -> Result<(), FileError> {
        self.0.start_file(text(name)?, Self::options(stat)).map_err(bad_zip)?;
        io::copy(content, &mut self.0)?;
        Ok(())
    }
}

/// Names in a zip archive are text.
fn text(name: &Path) -> Result<&str, FileError> {
    name.to_str()
        .ok_or_else(|| FileError::new(Code::INVALID, "a name is no text, which zip cannot hold; use tar").at(name))
}

pub(super) fn bad_zip(error: zip::result::ZipError) -> FileError {
    match error {
        zip::result::ZipError::Io(error) => error.into(),
        error => FileError::new(Code::BAD_ARCHIVE, error.to_string()),
    }
}
