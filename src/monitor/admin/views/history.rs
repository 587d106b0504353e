//! History of a few figures.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::monitor::admin::history::SERIES;
use crate::monitor::admin::reply::{self, Reply};
use crate::monitor::admin::routes::Call;
use crate::web::Problem;

/// Span up to now.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[allow(dead_code, reason = "described here, read by `span`")]
pub(in crate::monitor::admin) enum SpanName {
    #[serde(rename = "5m")]
    FiveMinutes,
    #[serde(rename = "15m")]
    QuarterHour,
    #[serde(rename = "1h")]
    Hour,
    #[serde(rename = "6h")]
    SixHours,
    #[serde(rename = "24h")]
    Day,
}

/// Figures at equal distances.
#[derive(Serialize, ToSchema)]
pub(super) struct HistoryView {
    /// Distance of two values.
    step_ms: u64,
    /// Time of the first value.
    from_ms: u64,
    /// Values of each figure, null where nothing was taken: `delivered_per_s`, `published_per_s`, `latency_p99_us`,
    /// `outbox`, `outbox_oldest_ms`, `dropped_per_s`, `links`, `rtt_ms`.
    #[schema(value_type = BTreeMap<String, Vec<Option<f64>>>)]
    series: BTreeMap<&'static str, Vec<Option<f64>>>,
}

fn span(name: Option<&str>) -> Option<Duration> {
    match name {
        None | Some("5m") => Some(Duration::from_mins(5)),
        Some("15m") => Some(Duration::from_mins(15)),
        Some("1h") => Some(Duration::from_hours(1)),
        Some("6h") => Some(Duration::from_hours(6)),
        Some("24h") => Some(Duration::from_hours(24)),
        Some(_) => None,
    }
}

/// A few figures over a span up to now: of each second up to 15 minutes, and of each minute beyond.
#[utoipa::path(get, path = "/api/v1/history", tag = "figures",
    params(("span" = Option<SpanName>, Query, description = "How far back; 5m by default")),
    responses((status = 200, description = "The figures", body = HistoryView)),
)]
pub(in crate::monitor::admin) fn history(call: &Call<'_>) -> Result<Reply, Problem> {
    let unknown = || Problem::invalid("The parameter span has to be 5m, 15m, 1h, 6h or 24h");
    let wanted = span(call.query.text("span")?).ok_or_else(unknown)?;
    let taken = call.shared.history().last(wanted);
    let values = |at: usize| {
        let value = |sample: &[f64; SERIES.len()]| Some(sample[at]).filter(|it| it.is_finite());
        taken.samples.iter().map(value).collect()
    };
    let series = SERIES.iter().enumerate().map(|(at, name)| (*name, values(at))).collect();
    reply::json(&HistoryView { step_ms: taken.step_ms, from_ms: taken.from_ms, series })
}
