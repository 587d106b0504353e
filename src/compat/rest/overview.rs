//! Paths about how the node is, in the words of the original's management API.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::peers::VERSION;
use super::problem::Problem;
use super::{Call, peers, respond_json};
use crate::compat::ops::Overview;
use crate::monitor::{PeerCounts, latency_ms, statistics};
use crate::types::{LinkState, LinkStatus, Mode, WallTime};
use crate::wire::generated::discovery::PeerInfo;

/// Last moment that a date of four digits can name.
const END_OF_DATES_MS: u64 = 253_402_300_799_999;

impl Call {
    pub(super) async fn health(&self) -> Result<Response<Bytes>, Problem> {
        let overview = self.ops.overview(&self.visitor).await?;
        let peers = Peers::of(&overview);
        let status = match overview.stats.mode {
            Mode::Online => "healthy",
            Mode::Degraded => "degraded",
            Mode::Offline => "unhealthy",
        };
        let said = json!({
            "status": status,
            "service": "peer-service",
            "timestamp": date(self.ops.now()),
            "version": VERSION,
            "uptime": time_span(overview.stats.uptime_s),
            "metrics": {
                "totalPeers": peers.total(),
                "healthyPeers": peers.healthy(),
                "unhealthyPeers": peers.total() - peers.healthy(),
                "averageLatencyMs": latency_ms(&overview.links),
                "queueSize": overview.stats.outbox,
            },
        });
        Ok(respond_json(StatusCode::OK, &said))
    }

    pub(super) async fn peers(&self) -> Result<Response<Bytes>, Problem> {
        let overview = self.ops.overview(&self.visitor).await?;
        Ok(respond_json(StatusCode::OK, &Peers::of(&overview).shown()))
    }

    pub(super) async fn peer(&self, id: &str) -> Result<Response<Bytes>, Problem> {
        let overview = self.ops.overview(&self.visitor).await?;
        let peers = Peers::of(&overview);
        let peer = peers.0.get(id).ok_or_else(|| Problem::not_found("The peer is not known"))?;
        Ok(respond_json(StatusCode::OK, &peer.shown(id)))
    }

    pub(super) async fn peers_health(&self) -> Result<Response<Bytes>, Problem> {
        let overview = self.ops.overview(&self.visitor).await?;
        let peers = Peers::of(&overview);
        let (total, healthy) = (peers.total(), peers.healthy());
        let percentage = if total == 0 { 0.0 } else { healthy as f64 * 100.0 / total as f64 };
        let said = json!({
            "totalPeers": total,
            "healthyPeers": healthy,
            "unhealthyPeers": total - healthy,
            "healthPercentage": percentage,
            "peers": peers.shown(),
        });
        Ok(respond_json(StatusCode::OK, &said))
    }

    pub(super) async fn peers_stats(&self) -> Result<Response<Bytes>, Problem> {
        let overview = self.ops.overview(&self.visitor).await?;
        let peers = Peers::of(&overview);
        let counts = PeerCounts {
            total: peers.total(),
            healthy: peers.healthy(),
            seeds: peers.0.values().filter(|peer| peer.is_seed()).count(),
        };
        let timestamp = date(self.ops.now());
        let said = statistics(&overview.stats, &overview.links, counts, &timestamp);
        Ok(respond_json(StatusCode::OK, &said))
    }
}

/// Everybody who is listed or linked, by id.
#[derive(Debug)]
struct Peers<'a>(BTreeMap<String, Peer<'a>>);

#[derive(Debug, Default)]
struct Peer<'a> {
    listed: Option<&'a PeerInfo>,
    link: Option<&'a LinkStatus>,
    /// True: a client that registered and answers.
    is_client: bool,
}

impl<'a> Peers<'a> {
    fn of(overview: &'a Overview) -> Self {
        let mut peers = BTreeMap::<String, Peer<'a>>::new();
        for listed in &overview.listed {
            let peer = peers.entry(listed.peer_id.clone()).or_default();
            peer.listed = Some(listed);
            // Ids of peers are never given to clients.
            peer.is_client = listed.peer_id.parse::<crate::types::PeerId>().is_err();
        }
        for link in &overview.links {
            peers.entry(link.peer.to_string()).or_default().link = Some(link);
        }
        Self(peers)
    }

    fn total(&self) -> usize {
        self.0.len()
    }

    fn healthy(&self) -> usize {
        self.0.values().filter(|peer| peer.is_healthy()).count()
    }

    fn shown(&self) -> Value {
        self.0.iter().map(|(id, peer)| peer.shown(id)).collect::<Vec<_>>().into()
    }
}

impl Peer<'_> {
    fn is_healthy(&self) -> bool {
        self.is_client || self.link.is_some_and(|link| link.state == LinkState::Up)
    }

    fn is_seed(&self) -> bool {
        self.listed.is_some_and(|listed| listed.is_seed_node)
    }

    fn shown(&self, id: &str) -> Value {
        let nowhere = PeerInfo { peer_id: id.to_owned(), ..PeerInfo::default() };
        let mut shown = peers::shown(self.listed.unwrap_or(&nowhere));
        let last_seen_s = self.listed.map_or(0, |listed| listed.last_seen);
        let last_seen_ms = u64::try_from(last_seen_s).unwrap_or_default().saturating_mul(1000);
        shown["lastSeen"] = date(WallTime::from_millis(last_seen_ms)).into();
        shown["isSeedNode"] = self.is_seed().into();
        shown["isConnected"] = self.link.is_some().into();
        shown["isHealthy"] = self.is_healthy().into();
        if let Some(link) = self.link {
            shown["averageLatencyMs"] = (link.rtt_us as f64 / 1000.0).into();
            shown["qualityScore"] = link.quality.into();
            shown["qualityRating"] = link.rating().into();
        }
        shown
    }
}

/// Date of a moment in UTC, as far as four digits name its year.
fn date(moment: WallTime) -> String {
    let millis = moment.as_millis().min(END_OF_DATES_MS);
    let moment = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    humantime::format_rfc3339_millis(moment).to_string()
}

/// Span of time as the original's clients read it: days where there are some, then hours, minutes, seconds.
fn time_span(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    let days = if days == 0 { String::new() } else { format!("{days}.") };
    format!("{days}{hours:02}:{minutes:02}:{seconds:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_spans_are_written_whatever_they_are() {
        assert_eq!(date(WallTime::from_millis(1_000_000_000_250)), "2001-09-09T01:46:40.250Z");
        assert_eq!(date(WallTime::from_millis(u64::MAX)), "9999-12-31T23:59:59.999Z");
        assert_eq!(time_span(0), "00:00:00");
        assert_eq!(time_span(2 * 86_400 + 3 * 3600 + 4 * 60 + 5), "2.03:04:05");
        assert!(time_span(u64::MAX).ends_with(":15"));
    }
}
