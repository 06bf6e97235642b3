//! How many failures are too many.

use std::str::FromStr;

/// A share of the chosen agents, or a count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::cli::exec) enum FailAt {
    Percent(f64),
    Count(usize),
}

impl FailAt {
    /// So many failures of this many agents stop it; at least one.
    pub(super) fn count(self, total: usize) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => ((total as f64 * percent / 100.0).ceil() as usize).max(1),
        }
    }
}

impl FromStr for FailAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no bound; write a share such as 20% (above 0, up to 100), or a count such as 3");
        match text.strip_suffix('%') {
            Some(percent) => {
                let percent: f64 = percent.parse().map_err(|_| wrong())?;
                (percent > 0.0 && percent <= 100.0).then_some(Self::Percent(percent)).ok_or_else(wrong)
            }
            None => text.parse().ok().filter(|count| *count > 0).map(Self::Count).ok_or_else(wrong),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_up_and_counts_are_counts() {
        let count = |text: &str, total| text.parse::<FailAt>().unwrap().count(total);
        assert_eq!((count("20%", 10), count("20%", 11), count("0.1%", 10), count("100%", 7)), (2, 3, 1, 7));
        assert_eq!((count("3", 10), count("1", 1)), (3, 1));
        for bad in ["", "0", "0%", "101%", "-1", "NaN%", "x", "%"] {
            assert!(bad.parse::<FailAt>().is_err(), "{bad:?}");
        }
    }
}
