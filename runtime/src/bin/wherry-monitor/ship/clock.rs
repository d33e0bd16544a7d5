//! The local time of this machine.
#![allow(unsafe_code, reason = "localtime_r(3) fills a struct that it is given a pointer to")]

/// A moment as clocks on the wall show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Local {
    pub(super) year: i32,
    /// 1 to 12.
    pub(super) month: u32,
    pub(super) day: u32,
    pub(super) hour: u32,
    pub(super) minute: u32,
    pub(super) second: u32,
    pub(super) nanosecond: u32,
    /// East of Greenwich.
    pub(super) offset_minutes: i32,
}

/// The local time of a moment, given in nanoseconds since the epoch.
pub(super) fn local(time_ns: i64) -> Local {
    let seconds: libc::time_t = time_ns.div_euclid(1_000_000_000);
    // SAFETY: all of `tm` may be zero, its pointer included, which is not followed.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both point to values of ours that live as long as the call; a null answer leaves `tm` as it is.
    unsafe { libc::localtime_r(&raw const seconds, &raw mut tm) };
    let small = |value: i32| u32::try_from(value).unwrap_or(0);
    Local {
        year: tm.tm_year + 1900,
        month: small(tm.tm_mon) + 1,
        day: small(tm.tm_mday),
        hour: small(tm.tm_hour),
        minute: small(tm.tm_min),
        second: small(tm.tm_sec),
        nanosecond: u32::try_from(time_ns.rem_euclid(1_000_000_000)).unwrap_or(0),
        offset_minutes: i32::try_from(tm.tm_gmtoff / 60).unwrap_or(0),
    }
}

impl Local {
    /// `Jan _2 15:04:05`.
    pub(super) fn stamp(&self) -> String {
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let month = MONTHS.get(self.month.saturating_sub(1) as usize).copied().unwrap_or("Jan");
        format!("{month} {:2} {:02}:{:02}:{:02}", self.day, self.hour, self.minute, self.second)
    }

    /// RFC 3339, with `digits` of the second's fraction.
    pub(super) fn rfc3339(&self, digits: usize) -> String {
        let Self { year, month, day, hour, minute, second, .. } = self;
        let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        if digits > 0 {
            let fraction = format!("{:09}", self.nanosecond);
            text.push('.');
            text.push_str(fraction.get(..digits).unwrap_or(&fraction));
        }
        match self.offset_minutes {
            0 => text.push('Z'),
            offset => {
                let (sign, offset) = if offset < 0 { ('-', -offset) } else { ('+', offset) };
                text.push_str(&format!("{sign}{:02}:{:02}", offset / 60, offset % 60));
            }
        }
        text
    }
}
