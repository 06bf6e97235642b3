//! Files as they are carried whole: where they are, and what became of them.

use base64::Engine;
use proto::file::FilePath;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Invalid;

/// Which file, `path` or `path_base64`, and what to hash.
#[derive(Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DownloadQuery {
    /// Absolute path on the agent
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(example = "/etc/hosts", min_length = 1, max_length = 4096)]
    pub path: Option<String>,
    /// The same as base64, for a path that is no text
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// With Range: `Landline-Blake3` counts from the beginning of the file, for a caller that has what lies before
    #[serde(default)]
    pub whole: bool,
}

/// Which folder: `path` or `path_base64`, one of the two.
#[derive(Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TreeQuery {
    /// Absolute path on the agent
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(example = "/srv/www", min_length = 1, max_length = 4096)]
    pub path: Option<String>,
    /// The same as base64, for a path that is no text
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
}

/// Which file, and what is to be in it.
#[derive(Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UploadQuery {
    /// Absolute path on the agent
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(example = "/tmp/upload", min_length = 1, max_length = 4096)]
    pub path: Option<String>,
    /// The same as base64, for a path that is no text
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// BLAKE3 of the whole file, hexadecimal: it is verified before the file takes its place, and makes it possible to go on after a break
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(pattern = "^[0-9a-f]{64}$")]
    pub blake3: Option<String>,
    /// Bytes of the whole file; may be left out if the body is all of it and has a Content-Length
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Where the body begins in the file; must be what the agent holds
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Permission bits, octal; left out: those of the file that is replaced, else 644
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(pattern = "^[0-7]{3,4}$", example = "644")]
    pub mode: Option<String>,
    /// Time of the last change, nanoseconds since 1970
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified_ns: Option<i64>,
}

/// What became of a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Uploaded {
    /// The file stands in its place. If not, it goes on at `offset`.
    pub complete: bool,
    /// Nothing was there before.
    pub created: bool,
    /// Bytes of it that the agent has.
    pub offset: u64,
    /// BLAKE3 of the whole, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
}

/// How much of a content the agent holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Held {
    /// Bytes; the next body begins there.
    pub offset: u64,
}

/// The path of a file on an agent, from its two spellings.
pub(in crate::api) fn file_path(text: Option<String>, encoded: Option<String>) -> Result<FilePath, Invalid> {
    let bad = |field: &'static str, problem: String| Invalid { field, problem };
    let path = match (text, encoded) {
        (Some(text), None) => FilePath(text.into_bytes()),
        (None, Some(encoded)) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(encoded);
            FilePath(bytes.map_err(|_| bad("path_base64", "not base64 with padding".into()))?)
        }
        (None, None) | (Some(_), Some(_)) => {
            return Err(bad("path", "give path or path_base64, one of the two".into()));
        }
    };
    path.check().map_err(|error| bad("path", error.to_string()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_two_spellings_and_begins_at_the_root() {
        let path = |text: Option<&str>, encoded: Option<&str>| {
            file_path(text.map(str::to_owned), encoded.map(str::to_owned)).ok().map(|path| path.0)
        };
        assert_eq!(path(Some("/a\nb"), None).unwrap(), b"/a\nb");
        assert_eq!(path(None, Some("L/8=")).unwrap(), b"/\xff");
        for (text, encoded) in [
            (None, None),
            (Some("/a"), Some("L2E=")),
            (Some(""), None),
            (Some("a"), None),
            (Some("/a\0"), None),
            (None, Some("%")),
            (None, Some("")),
        ] {
            assert_eq!(path(text, encoded), None, "{text:?} {encoded:?}");
        }
    }
}
