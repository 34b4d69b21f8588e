//! `strftime` in UTC, for templates that write the date.

use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Writes a time by a format of Python's `strftime`, in the C locale; fails at a directive that is not known.
pub(super) fn strftime(time: SystemTime, format: &str) -> Result<String, String> {
    let seconds = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
    };
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let weekday = (days + 4).rem_euclid(7) as usize;
    let day_of_year = days - days_before(year, 1) + 1;
    let month_name = MONTHS[month as usize - 1];
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let directive = chars.next().ok_or("strftime_now: the format ends with %")?;
        let text = match directive {
            'Y' => format!("{year:04}"),
            'y' => format!("{:02}", year.rem_euclid(100)),
            'm' => format!("{month:02}"),
            'd' => format!("{day:02}"),
            'H' => format!("{hour:02}"),
            'I' => format!("{:02}", (hour + 11) % 12 + 1),
            'M' => format!("{minute:02}"),
            'S' => format!("{second:02}"),
            'p' => if hour < 12 { "AM" } else { "PM" }.to_string(),
            'j' => format!("{day_of_year:03}"),
            'A' => DAYS[weekday].to_string(),
            'a' => DAYS[weekday][..3].to_string(),
            'B' => month_name.to_string(),
            'b' => month_name[..3].to_string(),
            'F' => format!("{year:04}-{month:02}-{day:02}"),
            'T' => format!("{hour:02}:{minute:02}:{second:02}"),
            '%' => "%".to_string(),
            other => return Err(format!("strftime_now: %{other} is not supported")),
        };
        out.push_str(&text);
    }
    Ok(out)
}

/// Days from 1 January 1970 to the first day of a month of the Gregorian calendar.
fn days_before(year: i64, month: i64) -> i64 {
    // Years begin in March, so that the leap day is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 - 719_468
}

/// Year, month and day of a day since 1 January 1970.
fn date(days: i64) -> (i64, i64, i64) {
    let mut year = 1970 + days.div_euclid(365);
    while days_before(year, 1) > days {
        year -= 1;
    }
    let month = (1..=12).rev().find(|&month| days_before(year, month) <= days).unwrap_or(1);
    (year, month, days - days_before(year, month) + 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_those_of_python() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let all = "%Y-%m-%d %H:%M:%S %y %I %p %j %A %a %B %b %%";
        // datetime.fromtimestamp(seconds, UTC).strftime(...)
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 70 12 AM 001 Thursday Thu January Jan %"),
            (951_782_399, "2000-02-28 23:59:59 00 11 PM 059 Monday Mon February Feb %"),
            (951_782_400, "2000-02-29 00:00:00 00 12 AM 060 Tuesday Tue February Feb %"),
            (1_735_646_400, "2024-12-31 12:00:00 24 12 PM 366 Tuesday Tue December Dec %"),
            (4_107_542_400, "2100-03-01 00:00:00 00 12 AM 060 Monday Mon March Mar %"),
        ] {
            assert_eq!(strftime(at(seconds), all).unwrap(), expected);
        }
        assert!(strftime(at(0), "%Q").unwrap_err().contains("%Q"));
        assert!(strftime(at(0), "%").is_err());
    }
}
