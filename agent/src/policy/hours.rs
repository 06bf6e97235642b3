//! When the owner lets the master in: lines such as `mon-fri 08:00-18:00`, by the machine's own clock and time zone.
//! Never by the master's time: that would hand the key to whoever is kept out.

use std::str::FromStr;

use jiff::{Zoned, civil::Weekday};

const MINUTES_PER_DAY: u16 = 24 * 60;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// One window of a week. Ends before it begins: it runs past midnight into the next day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hours {
    text: String,
    days: [bool; 7],
    from: u16,
    to: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write `mon-fri 08:00-18:00`, `sat,sun 10:00-12:30` or `daily 22:00-06:00`")]
pub(super) struct BadHours;

impl FromStr for Hours {
    type Err = BadHours;

    fn from_str(text: &str) -> Result<Self, BadHours> {
        let lower = text.trim().to_ascii_lowercase();
        let (days, times) = lower.split_once(char::is_whitespace).ok_or(BadHours)?;
        let (from, to) = times.trim().split_once('-').ok_or(BadHours)?;
        let (from, to) = (minute(from)?, minute(to)?);
        if from == to {
            return Err(BadHours);
        }
        Ok(Self { text: text.trim().to_owned(), days: read_days(days)?, from, to })
    }
}

fn read_days(text: &str) -> Result<[bool; 7], BadHours> {
    let mut days = [false; 7];
    if text == "daily" {
        return Ok([true; 7]);
    }
    let index = |name: &str| DAYS.iter().position(|day| *day == name).ok_or(BadHours);
    for item in text.split(',') {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (first, last) = (index(first)?, index(last)?);
        let length = (last + 7 - first) % 7;
        for step in 0..=length {
            days[(first + step) % 7] = true;
        }
    }
    Ok(days)
}

fn minute(text: &str) -> Result<u16, BadHours> {
    let (hour, minute) = text.trim().split_once(':').ok_or(BadHours)?;
    let number = |text: &str| text.parse::<u16>().map_err(|_| BadHours);
    let (hour, minute) = (number(hour)?, number(minute)?);
    let total = hour * 60 + minute;
    if hour > 24 || minute > 59 || total > MINUTES_PER_DAY { Err(BadHours) } else { Ok(total) }
}

impl Hours {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn open_at(&self, now: &Zoned) -> bool {
        let minute = u16::try_from(i32::from(now.hour()) * 60 + i32::from(now.minute())).unwrap_or(0);
        self.open(now.weekday(), minute)
    }

    fn open(&self, day: Weekday, minute: u16) -> bool {
        let today = usize::try_from(day.to_monday_zero_offset()).unwrap_or(0);
        let yesterday = (today + 6) % 7;
        if self.from < self.to {
            self.days[today] && (self.from..self.to).contains(&minute)
        } else {
            (self.days[today] && minute >= self.from) || (self.days[yesterday] && minute < self.to)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_open_and_close_on_the_minute() {
        let hours: Hours = "mon-fri 08:00-18:00".parse().unwrap();
        assert!(!hours.open(Weekday::Monday, 479) && hours.open(Weekday::Monday, 480));
        assert!(hours.open(Weekday::Friday, 1079) && !hours.open(Weekday::Friday, 1080));
        assert!(!hours.open(Weekday::Saturday, 600));
        let night: Hours = "fri,sat 22:00-06:00".parse().unwrap();
        assert!(night.open(Weekday::Friday, 1380) && night.open(Weekday::Sunday, 359));
        assert!(!night.open(Weekday::Friday, 359) && !night.open(Weekday::Sunday, 1380));
        let wrapped: Hours = "sun-mon 00:00-24:00".parse().unwrap();
        assert!(wrapped.open(Weekday::Sunday, 0) && wrapped.open(Weekday::Monday, 1439));
        assert!(!wrapped.open(Weekday::Tuesday, 0));
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for text in [
            "",
            "mon",
            "mon 8-9",
            "mon 08:00",
            "abc 08:00-09:00",
            "mon 08:00-25:00",
            "mon 08:60-09:00",
            "mon 08:00-08:00",
        ] {
            assert!(text.parse::<Hours>().is_err(), "{text:?}");
        }
    }
}
