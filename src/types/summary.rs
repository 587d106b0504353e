//! The sentence that an operator reads first: why a transaction is here, or why it is not.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::explanation::{state, what};
use super::{Explanation, PeerId, Step};

/// Maximum number of peers of which a summary tells what they have to tell beside their state.
const MAX_TOLD: usize = 3;

impl Explanation {
    /// Writes the summary. `hint` says what stood in the way of links lately, where something did.
    pub(crate) fn summarise(&mut self, hint: Option<&str>) {
        self.summary = match self.state.as_str() {
            state::REFUSED => self.why_refused(),
            state::PENDING if self.own => format!("Waits in the outbox: {}", self.waits_for(hint)),
            state::PENDING => self.on_its_way(),
            state::STORED => self.stored(),
            state::CONFIRMED => self.confirmed(),
            state::DEAD_LETTER => self.given_up(),
            state::EXPIRED => self.expired(),
            _ => self.not_heard_of(hint),
        };
    }

    /// Adds what the peers say that were asked.
    pub(crate) fn summarise_across(&mut self) {
        let asked = self.elsewhere.len() + self.not_told.len();
        if asked == 0 {
            return;
        }
        let mut groups: Vec<(String, String, usize)> = Vec::new();
        for there in self.elsewhere.values() {
            let (one, many) = there.in_short();
            match groups.iter_mut().find(|(known, ..)| *known == one) {
                Some((.., count)) => *count += 1,
                None => groups.push((one, many, 1)),
            }
        }
        groups.sort_by_key(|(.., count)| std::cmp::Reverse(*count));
        let say = |(one, many, n): &(String, String, usize)| {
            format!("{n} {}", if *n == 1 { one } else { many })
        };
        let mut said: Vec<_> = groups.iter().map(say).collect();
        if !self.not_told.is_empty() {
            said.push(format!("{} did not tell", self.not_told.len()));
        }
        let _ = write!(self.summary, ". Of {} asked, {}", peers(asked), said.join(", "));
        let held = self.elsewhere.iter().filter(|(_, there)| there.is_held());
        let told = held.filter_map(|(peer, there)| Some((peer, there.beyond()?)));
        for (peer, beyond) in told.take(MAX_TOLD) {
            let _ = write!(self.summary, "; at {}, {beyond}", peer.short());
        }
    }

    fn is_held(&self) -> bool {
        matches!(self.state.as_str(), state::STORED | state::CONFIRMED)
    }

    /// Returns what is told of a peer among others, after their number: of one, and of several.
    fn in_short(&self) -> (String, String) {
        let both = |one: &str, many: &str| (one.to_owned(), many.to_owned());
        match self.state.as_str() {
            state::STORED | state::CONFIRMED => both("has it", "have it"),
            state::PENDING => both("is about to have it", "are about to have it"),
            state::EXPIRED => both("had it until it expired", "had it until it expired"),
            state::REFUSED => {
                let says = match self.last_refusal() {
                    Some(step) if step.what == what::NOT_STORED => {
                        format!("could not keep it: {}", self.reason_of(step))
                    }
                    Some(step) => format!("refused it: {}", self.reason_of(step)),
                    None => "refused it".to_owned(),
                };
                (says.clone(), says)
            }
            state::DEAD_LETTER => both("gave it up", "gave it up"),
            _ => both("has not heard of it", "have not heard of it"),
        }
    }

    fn last_refusal(&self) -> Option<&Step> {
        let refusal = |step: &&Step| step.what == what::REFUSED || step.what == what::NOT_STORED;
        self.steps.iter().rfind(refusal)
    }

    fn why_refused(&self) -> String {
        match self.last_refusal() {
            Some(step) if step.what == what::NOT_STORED => {
                format!("Not kept: {}; it is fetched again later", self.reason_of(step))
            }
            Some(step) => format!("Refused: {}", self.reason_of(step)),
            None => "Refused here, for a reason that is not remembered any more".to_owned(),
        }
    }

    /// Returns the reason of a refusal as a sentence.
    fn reason_of(&self, step: &Step) -> String {
        let reason = step.reason.as_deref().unwrap_or("no reason is given");
        let known = match reason {
            "wrong_hash" => "its payload does not match its hash",
            "wrong_signature" => "its origin did not sign it",
            "skewed" => "its date is ahead of the clock, by more than network.max_clock_skew",
            "expired" => "it had expired",
            "over_share" => "its origin has its share of the store",
            "over_rate" => "its origin has published as much as its rate allows",
            "rejected" => "the validator rejected it",
            "ignored" => "the validator ignored it",
            "full" => "the store is full",
            "too_large" => {
                let size = self.size.map_or_else(String::new, |size| format!("of {size} bytes "));
                return format!("its payload {size}is over the size limit");
            }
            "unwanted" => return format!("{} is not carried", self.topic_name()),
            words if step.what == what::NOT_STORED => {
                return format!("the store failed ({words})");
            }
            words => words,
        };
        known.to_owned()
    }

    fn topic_name(&self) -> String {
        let name = self.topic.as_ref().map(super::Topic::as_str);
        name.map_or_else(|| "its topic".to_owned(), |name| format!("topic {name}"))
    }

    fn count(&self, what: &str) -> usize {
        self.all(what).count()
    }

    /// Returns how many peers have confirmed it.
    fn copies(&self) -> usize {
        let confirmed = self.all(what::CONFIRMED).map(|step| step.peer);
        confirmed.collect::<std::collections::BTreeSet<_>>().len()
    }

    /// Returns the latest refusal of each peer that has not confirmed since.
    fn refusing(&self) -> Vec<&Step> {
        let mut latest: BTreeMap<Option<PeerId>, &Step> = BTreeMap::new();
        for step in &self.steps {
            match step.what.as_str() {
                what::REFUSED_BY => {
                    latest.insert(step.peer, step);
                }
                what::CONFIRMED => {
                    latest.remove(&step.peer);
                }
                what::REDELIVERED => latest.clear(),
                _ => {}
            }
        }
        latest.into_values().collect()
    }

    /// Tells of the peers that refuse it, by reason.
    fn refusals(&self) -> Vec<String> {
        let mut by_reason: BTreeMap<String, usize> = BTreeMap::new();
        for step in self.refusing() {
            *by_reason.entry(self.reason_of(step)).or_default() += 1;
        }
        let refused = by_reason.into_iter();
        refused.map(|(reason, n)| format!("refused by {}: {reason}", peers(n))).collect()
    }

    /// Tells what an own transaction waits for.
    fn waits_for(&self, hint: Option<&str>) -> String {
        let mut parts = Vec::new();
        let copies = self.copies();
        if copies > 0 {
            parts.push(format!("confirmed by {} so far", nodes(copies)));
        }
        parts.extend(self.refusals());
        if self.links == 0 {
            parts.push(alone(hint));
            parts.extend(self.bans());
            return parts.join("; ");
        }
        parts.extend(self.beyond());
        let refusing: Vec<_> = self.refusing().iter().map(|step| step.peer).collect();
        let silent = self.all(what::OFFERED).filter(|step| !refusing.contains(&step.peer));
        match silent.count() {
            0 if parts.is_empty() => parts.push("too few peers have confirmed it".to_owned()),
            0 => {}
            1 => parts.push("1 linked peer has yet to confirm it".to_owned()),
            n => parts.push(format!("{n} linked peers have yet to confirm it")),
        }
        parts.join("; ")
    }

    /// Tells of linked peers that it is not offered to, or not yet.
    fn beyond(&self) -> Option<String> {
        let (topic, all) = (self.topic_name(), usize::try_from(self.links).unwrap_or(usize::MAX));
        let size = self.size.unwrap_or(0);
        let mut parts = Vec::new();
        match self.count(what::NOT_CARRIED) {
            0 => {}
            n if n >= all => parts.push(format!("no linked peer carries {topic}")),
            1 => parts.push(format!("1 linked peer does not carry {topic}")),
            n => parts.push(format!("{n} linked peers do not carry {topic}")),
        }
        match self.count(what::OVER_LIMIT) {
            0 => {}
            n => {
                let whose = if n >= all { "every linked peer".to_owned() } else { peers(n) };
                parts.push(format!("{size} bytes are over the size limit of {whose}"));
            }
        }
        match self.count(what::IN_DEBT) + self.count(what::BEHIND) {
            0 => {}
            1 => parts.push("1 peer has yet to be offered it, being slow".to_owned()),
            n => parts.push(format!("{n} peers have yet to be offered it, being slow")),
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// Tells of peers that are banned here.
    fn bans(&self) -> Option<String> {
        let count = self.count(what::BANNED);
        let verb = if count == 1 { "is" } else { "are" };
        (count > 0).then(|| format!("{} {verb} banned here", peers(count)))
    }

    fn on_its_way(&self) -> String {
        if self.count(what::ACCEPTED) > 0 {
            return "Accepted, and being stored".to_owned();
        }
        if self.count(what::CHECKING) > 0 {
            return "Here, and being checked".to_owned();
        }
        let heard = peers(self.count(what::ANNOUNCED_BY));
        match self.all(what::ASKED).find_map(|step| step.peer) {
            Some(peer) => {
                format!("On its way here: announced by {heard}, asked of {}", peer.short())
            }
            None => format!("On its way here: announced by {heard}, not asked for yet"),
        }
    }

    fn stored(&self) -> String {
        let mut text = "Stored here".to_owned();
        if self.own {
            text += "; how many other nodes have it is not known any more";
        } else if let Some(peer) = self.all(what::ACCEPTED).find_map(|step| step.peer) {
            let _ = write!(text, ", received from {}", peer.short());
        }
        if let Some(beyond) = self.beyond() {
            let _ = write!(text, "; {beyond}");
        }
        text
    }

    fn confirmed(&self) -> String {
        let mut text = match self.copies() {
            0 => "Stored here and confirmed by enough other nodes".to_owned(),
            n => format!("Stored here and confirmed by {}", nodes(n)),
        };
        for part in self.refusals().into_iter().chain(self.beyond()) {
            let _ = write!(text, "; {part}");
        }
        text
    }

    fn given_up(&self) -> String {
        let reason = self.all(what::DEAD_LETTERED).last().and_then(|step| step.reason.clone());
        let mut text = "Given up, kept as a dead letter".to_owned();
        if let Some(reason) = reason {
            let _ = write!(text, ": {reason}");
        }
        for part in self.refusals().into_iter().chain(self.beyond()) {
            let _ = write!(text, "; {part}");
        }
        text
    }

    fn expired(&self) -> String {
        if let Some(step) = self.all(what::RENEWED).last() {
            let anew = step.reason.as_deref().unwrap_or("another id");
            let refused = self.refusals().join("; ");
            let refused = if refused.is_empty() { refused } else { format!(" ({refused})") };
            return format!(
                "Expired before any other node had it{refused}, and published anew as {anew}"
            );
        }
        if self.count(what::STALE) > 0 {
            return "Expired in the outbox before any other node had it; it is published anew \
                    once a peer is linked"
                .to_owned();
        }
        "Expired: it was here, and was forgotten when its time was over".to_owned()
    }

    fn not_heard_of(&self, hint: Option<&str>) -> String {
        if self.links > 0 {
            return "Not heard of: no linked peer has offered it".to_owned();
        }
        let bans = self.bans().map_or_else(String::new, |bans| format!("; {bans}"));
        format!("Not heard of: {}{bans}", alone(hint))
    }
}

fn alone(hint: Option<&str>) -> String {
    let hint = hint.map_or_else(String::new, |hint| format!(" ({hint})"));
    format!("no peer is linked{hint}")
}

fn peers(n: usize) -> String {
    if n == 1 { "1 peer".to_owned() } else { format!("{n} peers") }
}

fn nodes(n: usize) -> String {
    if n == 1 { "1 other node".to_owned() } else { format!("{n} other nodes") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{TransactionId, TransportKind, WallTime};

    fn told(state: &str, own: bool, links: u32, steps: &[(&str, u8, Option<&str>)]) -> Explanation {
        let mut told = Explanation::new(TransactionId::from_bytes([7; 32]));
        (told.state, told.own, told.links) = (state.to_owned(), own, links);
        (told.size, told.topic) = (Some(5000), Some("orders".parse().unwrap()));
        told.steps = (steps.iter())
            .map(|(what, peer, reason)| {
                let mut step = Step::new(WallTime::from_millis(1), what);
                if *peer > 0 {
                    step = step.with(PeerId::from_bytes([*peer; 32]), TransportKind::Memory);
                }
                step.reason = reason.map(str::to_owned);
                step
            })
            .collect();
        told.summarise(None);
        told
    }

    #[test]
    fn one_sentence_for_each_state() {
        type Case<'a> = (&'a str, bool, u32, &'a [(&'a str, u8, Option<&'a str>)], &'a str);
        let cases: [Case<'_>; 12] = [
            ("unknown", false, 0, &[], "Not heard of: no peer is linked"),
            ("unknown", false, 2, &[], "Not heard of: no linked peer has offered it"),
            (
                "refused",
                false,
                1,
                &[("refused", 1, Some("rejected"))],
                "Refused: the validator rejected it",
            ),
            (
                "refused",
                false,
                1,
                &[("not_stored", 0, Some("full"))],
                "Not kept: the store is full; it is fetched again later",
            ),
            (
                "refused",
                false,
                1,
                &[("refused", 1, Some("too_large"))],
                "Refused: its payload of 5000 bytes is over the size limit",
            ),
            ("pending", true, 0, &[], "Waits in the outbox: no peer is linked"),
            (
                "pending",
                true,
                1,
                &[("not_carried", 1, None)],
                "Waits in the outbox: no linked peer carries topic orders",
            ),
            (
                "pending",
                true,
                3,
                &[("confirmed", 1, None), ("over_limit", 2, Some("4096")), ("offered", 3, None)],
                "Waits in the outbox: confirmed by 1 other node so far; 5000 bytes are over the \
                 size limit of 1 peer; 1 linked peer has yet to confirm it",
            ),
            (
                "pending",
                true,
                1,
                &[("refused_by", 1, Some("skewed")), ("offered", 1, None)],
                "Waits in the outbox: refused by 1 peer: its date is ahead of the clock, by more \
                 than network.max_clock_skew",
            ),
            (
                "confirmed",
                true,
                2,
                &[("confirmed", 1, None), ("confirmed", 2, None)],
                "Stored here and confirmed by 2 other nodes",
            ),
            (
                "dead_letter",
                true,
                1,
                &[("refused_by", 1, Some("rejected")), ("dead_lettered", 0, Some("none took it"))],
                "Given up, kept as a dead letter: none took it; refused by 1 peer: the validator \
                 rejected it",
            ),
            (
                "expired",
                false,
                1,
                &[("expired", 0, None)],
                "Expired: it was here, and was forgotten when its time was over",
            ),
        ];
        for (state, own, links, steps, expected) in cases {
            assert_eq!(told(state, own, links, steps).summary, expected);
        }
        let mut hinted = told("pending", true, 0, &[("banned", 1, Some("a test"))]);
        hinted.summarise(Some("the link was refused: banned"));
        let expected = "Waits in the outbox: no peer is linked (the link was refused: banned); 1 \
                        peer is banned here";
        assert_eq!(hinted.summary, expected);
    }

    #[test]
    fn peers_that_were_asked_are_counted_by_what_they_say() {
        let mut here = told("confirmed", true, 4, &[("confirmed", 1, None)]);
        let stored = |peer| {
            let beyond = [("not_carried", 9, None)];
            (PeerId::from_bytes([peer; 32]), told("stored", false, 2, &beyond))
        };
        let refused = told("refused", false, 1, &[("refused", 1, Some("rejected"))]);
        here.elsewhere = [stored(1), stored(2), (PeerId::from_bytes([3; 32]), refused)].into();
        here.not_told = vec![PeerId::from_bytes([4; 32])];
        here.summarise_across();
        let start = "Stored here and confirmed by 1 other node. Of 4 peers asked, 2 have it, 1 \
                     refused it: the validator rejected it, 1 did not tell; at 01";
        assert!(here.summary.starts_with(start), "{}", here.summary);
        let end = "1 linked peer does not carry topic orders";
        assert!(here.summary.ends_with(end), "{}", here.summary);
    }

    #[test]
    fn an_explanation_is_json_with_the_names_of_the_contract() {
        let told = told("pending", true, 0, &[("refused_by", 1, Some("skewed"))]);
        let json = serde_json::to_value(&told).unwrap();
        assert_eq!(json["steps"][0]["at_ms"], 1);
        assert_eq!(json["steps"][0]["transport"], "memory");
        assert_eq!(json["topic"], "orders");
        assert_eq!(json["elsewhere"], serde_json::json!({}));
        assert_eq!(serde_json::from_value::<Explanation>(json).unwrap(), told);
    }
}
