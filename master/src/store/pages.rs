//! Paging by opaque cursor: a page says where the next one starts, and new rows never shift what was seen.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::StoreError;

/// Rows of a page when the caller names no limit, and the most it may name.
pub const LIMIT_DEFAULT: u32 = 100;
pub const LIMIT_MAX: u32 = 1_000;

/// Which part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// `next_cursor` of the page before; `None` starts at the beginning.
    pub cursor: Option<String>,
    /// Clamped to 1..=[`LIMIT_MAX`].
    pub limit: u32,
}

impl Default for Page {
    fn default() -> Self {
        Self { cursor: None, limit: LIMIT_DEFAULT }
    }
}

/// Part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paged<T> {
    pub items: Vec<T>,
    /// `None` on the last page.
    pub next_cursor: Option<String>,
}

impl Page {
    pub(super) fn rows(&self) -> i64 {
        i64::from(self.limit.clamp(1, LIMIT_MAX))
    }

    /// The key parts the cursor carries. A cursor this store did not make is [`StoreError::BadCursor`].
    pub(super) fn after(&self) -> Result<Option<(i64, String)>, StoreError> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| StoreError::BadCursor)?;
        let text = String::from_utf8(bytes).map_err(|_| StoreError::BadCursor)?;
        let (number, word) = text.split_once(':').ok_or(StoreError::BadCursor)?;
        Ok(Some((number.parse().map_err(|_| StoreError::BadCursor)?, word.to_owned())))
    }
}

impl<T> Paged<T> {
    /// From up to `page.rows() + 1` items, the surplus one telling that there is a next page.
    pub(super) fn cut(mut items: Vec<T>, page: &Page, key: impl Fn(&T) -> (i64, String)) -> Self {
        let rows = usize::try_from(page.rows()).unwrap_or(usize::MAX);
        let more = items.len() > rows;
        items.truncate(rows);
        let last = items.last().filter(|_| more).map(key);
        let next_cursor = last.map(|(number, word)| URL_SAFE_NO_PAD.encode(format!("{number}:{word}")));
        Self { items, next_cursor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_and_foreign_ones_are_refused() {
        let page = Page { cursor: None, limit: 2 };
        let paged = Paged::cut(vec![1_i64, 2, 3], &page, |item| (*item, "x:y".to_owned()));
        assert_eq!(paged.items, [1, 2]);
        let next = Page { cursor: paged.next_cursor, limit: 2 };
        assert_eq!(next.after().unwrap(), Some((2, "x:y".to_owned())));
        for bad in ["", "%%%", "bm8", "eDp5"] {
            let page = Page { cursor: Some(bad.to_owned()), limit: 1 };
            assert!(matches!(page.after(), Err(StoreError::BadCursor)), "{bad}");
        }
        assert_eq!(Paged::cut(vec![1_i64, 2], &next, |item| (*item, String::new())).next_cursor, None);
    }

    #[test]
    fn limits_are_clamped() {
        assert_eq!(Page { cursor: None, limit: 0 }.rows(), 1);
        assert_eq!(Page { cursor: None, limit: u32::MAX }.rows(), i64::from(LIMIT_MAX));
    }
}
