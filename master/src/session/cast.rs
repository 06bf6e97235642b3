//! The text of recordings: asciicast v2, one JSON array a line behind a header. Output that is no UTF-8 stands beside its
//! readable form in an event of a code of our own, which players ignore, so that a replay is exact to the byte. Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::shell::Size;
use serde_json::{Value, json};

/// The exact bytes of the output event behind it, as base64. In front, so that a torn end loses the repetition only.
const BYTES: &str = "landline-bytes";
/// So many bytes of output were dropped here.
const LOST: &str = "landline-lost";

/// What a recording holds, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Cast {
    Output(Vec<u8>),
    Resize(Size),
    Lost(u64),
}

/// The first line.
pub fn header(size: Size, started_s: i64, term: &str, title: &str) -> String {
    let header = json!({
        "version": 2, "width": size.cols, "height": size.rows, "timestamp": started_s, "title": title,
        "env": { "TERM": term },
    });
    format!("{header}\n")
}

/// One event, with its line end; output that is no text takes two lines.
pub fn event(seconds: f64, event: &Cast) -> String {
    let line = |code: &str, data: &str| format!("{}\n", json!([seconds, code, data]));
    match event {
        Cast::Output(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => line("o", text),
            Err(_) => line(BYTES, &STANDARD.encode(bytes)) + &line("o", &String::from_utf8_lossy(bytes)),
        },
        Cast::Resize(size) => line("r", &format!("{}x{}", size.cols, size.rows)),
        Cast::Lost(bytes) => line(LOST, &bytes.to_string()),
    }
}

/// Where a text piece may be cut so that no character is torn: all of it, unless its last one is incomplete.
pub fn whole(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        Ok(_) | Err(_) => bytes.len(),
    }
}

/// Reads events line by line.
#[derive(Debug, Default)]
pub struct Reader {
    /// The next output event only repeats what was given already.
    repeated: bool,
}

impl Reader {
    /// Whether the event that was begun has another line.
    pub fn is_inside(&self) -> bool {
        self.repeated
    }

    /// What this line says. Lines of unknown codes, the header and torn lines say nothing.
    pub fn line(&mut self, line: &str) -> Option<(f64, Cast)> {
        let Ok(Value::Array(parts)) = serde_json::from_str::<Value>(line) else { return None };
        let [time, Value::String(code), Value::String(data)] = parts.as_slice() else { return None };
        let event = match code.as_str() {
            BYTES => {
                self.repeated = true;
                Cast::Output(STANDARD.decode(data).ok()?)
            }
            "o" if std::mem::take(&mut self.repeated) => return None,
            "o" => Cast::Output(data.clone().into_bytes()),
            "r" => Cast::Resize(size(data)?),
            LOST => Cast::Lost(data.parse().ok()?),
            _ => return None,
        };
        Some((time.as_f64().unwrap_or_default(), event))
    }
}

fn size(text: &str) -> Option<Size> {
    let (cols, rows) = text.split_once('x')?;
    Some(Size { cols: cols.parse().ok()?, rows: rows.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Vec<Cast> {
        let mut reader = Reader::default();
        text.lines().filter_map(|line| reader.line(line)).map(|(_, event)| event).collect()
    }

    #[test]
    fn players_read_it_as_asciicast() {
        let size = Size { cols: 80, rows: 24 };
        let header: Value = serde_json::from_str(&header(size, 1_700_000_000, "xterm", "home-1")).unwrap();
        assert_eq!((&header["version"], &header["width"], &header["height"]), (&json!(2), &json!(80), &json!(24)));
        assert_eq!(event(0.5, &Cast::Output(b"a\x1b[m\r\n".to_vec())), "[0.5,\"o\",\"a\\u001b[m\\r\\n\"]\n");
        assert_eq!(event(1.0, &Cast::Resize(size)), "[1.0,\"r\",\"80x24\"]\n");
    }

    #[test]
    fn characters_are_not_torn() {
        assert_eq!(whole("grün".as_bytes()), 5);
        assert_eq!(whole(&"grün".as_bytes()[..3]), 2, "half a character waits");
        assert_eq!(whole(b"a\xff"), 2, "what is no text at all does not");
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..20)) {
            let events: Vec<_> = pieces.into_iter().map(Cast::Output).collect();
            let text: String = events.iter().map(|e| event(1.0, e)).collect();
            prop_assert_eq!(read(&text), events);
        }

        #[test]
        fn any_prefix_is_a_recording(pieces in proptest::collection::vec("\\PC{1,20}", 1..10), cut in any::<proptest::sample::Index>()) {
            let all: String = pieces.iter().map(|p| event(1.0, &Cast::Output(p.clone().into_bytes()))).collect();
            let cut = (0..=cut.index(all.len() + 1)).rev().find(|at| all.is_char_boundary(*at)).unwrap();
            let whole = all[..cut].rfind('\n').map_or("", |end| &all[..=end]);
            let read: Vec<u8> = read(whole).into_iter().flat_map(|e| match e { Cast::Output(b) => b, _ => Vec::new() }).collect();
            prop_assert!(pieces.concat().into_bytes().starts_with(&read));
        }
    }
}
