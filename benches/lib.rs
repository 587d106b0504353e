//! What several benches share.

/// Reports whether to run each row once and briefly, just to see that it runs: with `--test`, and
/// in what `cargo test --benches` builds, as figures without optimisation say nothing.
pub fn is_smoke() -> bool {
    cfg!(debug_assertions) || std::env::args().any(|argument| argument == "--test")
}

/// CPU time of a process (its id, or `self`), user and system, in seconds (Linux; 0 elsewhere).
pub fn cpu_seconds(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = after_name.split_ascii_whitespace().skip(11).take(2);
    // Clock ticks, which Linux fixes at 100 a second for this file.
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// The middle one of several measurements, by what `of` takes from each.
pub fn median<T>(rows: &[T], of: impl Fn(&T) -> f64) -> f64 {
    let mut values: Vec<_> = rows.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
