//! The first page: the system as declared, with what flows in it now, and how it does.

mod layout;

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use contract::console::{LiveFlow, MapFacts};
use contract::control::System;

use crate::page::Page;
use crate::phrase;
use layout::{Area, EDGE, HEIGHT, INTERNET, NODE_H, NODE_W};

/// A process that told nothing for so long is shown as silent, milliseconds.
const SILENT_MS: u64 = 30_000;
const LABEL_H: f64 = 22.0;
/// A description of the system older than this is shown as old, milliseconds.
const OLD_MS: u64 = 10_000;

#[derive(Template)]
#[template(path = "map.html")]
struct MapPage {
    system: String,
    epoch: u64,
    digest: String,
    digest_short: String,
    old: Option<String>,
    known: bool,
    tiles: Vec<Tile>,
    alerts: Vec<String>,
    width: String,
    height: String,
    zone_x: String,
    zone_w: String,
    nodes: Vec<Shape>,
    lines: Vec<Line>,
    roles: Vec<Role>,
    chart: Chart,
    reasons: Vec<(String, String, u64)>,
}

struct Tile {
    label: &'static str,
    value: String,
    note: String,
    tone: &'static str,
}

/// A node as it is drawn.
struct Shape {
    x: String,
    y: String,
    kind: String,
    title: String,
    under: String,
    tip: String,
    sensitivity: u8,
    untrusted: bool,
    guarded: bool,
    health: &'static str,
    busy: bool,
}

struct Line {
    path: String,
    state: &'static str,
    label: String,
    label_x: String,
    label_y: String,
    label_w: String,
    label_left: String,
    tip: String,
}

struct Role {
    name: String,
    health: &'static str,
    note: String,
}

/// Refusals by hour, as bars.
pub(crate) struct Chart {
    pub(crate) bars: Vec<Bar>,
    pub(crate) most: u64,
    pub(crate) total: u64,
}

/// One hour.
pub(crate) struct Bar {
    pub(crate) x: String,
    pub(crate) y: String,
    pub(crate) h: String,
    pub(crate) label: String,
    pub(crate) tip: String,
}

pub(crate) fn page(facts: &MapFacts) -> Page {
    let empty = System { name: String::new(), manifest: trust::Digest::of(b""), epoch: 0, nodes: Vec::new(), flows: Vec::new() };
    let system = facts.system.as_ref().unwrap_or(&empty);
    let layout = layout::lay_out(system);
    let (lines, alerts) = lines(facts, system, &layout);
    let digest = system.manifest.to_hex();
    let left = layout.spots.get(EDGE).map_or(0.0, |s| s.x - NODE_W / 2.0 - 30.0);
    let template = MapPage {
        system: system.name.clone(),
        epoch: system.epoch,
        digest_short: digest.chars().take(12).collect(),
        digest,
        old: (facts.system.is_some() && facts.system_age_ms > OLD_MS)
            .then(|| phrase::duration(facts.system_age_ms.saturating_mul(1_000_000))),
        known: facts.system.is_some(),
        tiles: tiles(facts, system),
        alerts,
        width: format!("{:.0}", layout.width),
        height: format!("{HEIGHT:.0}"),
        zone_x: format!("{left:.0}"),
        zone_w: format!("{:.0}", (layout.width - left - 8.0).max(0.0)),
        nodes: shapes(facts, system, &layout),
        lines,
        roles: roles(facts, system),
        chart: chart(facts),
        reasons: reasons(facts),
    };
    Page::of("System map", "map", true, &template)
}

fn tiles(facts: &MapFacts, system: &System) -> Vec<Tile> {
    let sum = |f: fn(&LiveFlow) -> u64| facts.flows.iter().map(f).sum::<u64>();
    let (allowed, denied, failed) = (sum(|f| f.allowed), sum(|f| f.denied), sum(|f| f.failed));
    let expected: BTreeSet<&str> = system.nodes.iter().map(|n| n.id.as_str()).filter(|id| is_process(id)).collect();
    let heard = expected.iter().filter(|id| health(facts, id).0 == "up").count();
    let waiting: u64 = facts.queues.iter().map(|q| q.waiting).sum();
    let dead: u64 = facts.queues.iter().map(|q| q.dead).sum();
    let audit = &facts.audit;
    vec![
        Tile {
            label: "Decisions, last minute",
            value: phrase::number(allowed.saturating_add(denied)),
            note: format!("{} failed", phrase::number(failed)),
            tone: if failed > 0 { "warn" } else { "" },
        },
        Tile {
            label: "Refused, last minute",
            value: phrase::number(denied),
            note: format!("{} in 24 h", phrase::number(facts.refusals.iter().map(|r| r.count).sum())),
            tone: if denied > 0 { "bad" } else { "good" },
        },
        Tile {
            label: "Processes heard of",
            value: format!("{heard}\u{2009}/\u{2009}{}", expected.len()),
            note: format!("in the last {} s", SILENT_MS / 1000),
            tone: if heard < expected.len() { "warn" } else { "good" },
        },
        Tile {
            label: "Messages waiting",
            value: phrase::number(waiting),
            note: if dead > 0 { format!("{} dead letters", phrase::number(dead)) } else { "no dead letters".to_owned() },
            tone: if dead > 0 { "bad" } else { "" },
        },
        Tile {
            label: "Audit records",
            value: phrase::number(audit.records),
            note: format!("signed to {}, {}", phrase::number(audit.checkpointed), phrase::ago(facts.now_ms, audit.checkpoint_ms)),
            tone: if audit.broken.is_some() { "bad" } else { "good" },
        },
    ]
}

fn is_process(id: &str) -> bool {
    id.starts_with("service/") || id.starts_with("role/")
}

fn health(facts: &MapFacts, id: &str) -> (&'static str, u64) {
    let last = facts.processes.iter().filter(|p| p.workload == id).map(|p| p.heard_ms).max().unwrap_or(0);
    let state = match facts.now_ms.saturating_sub(last) {
        _ if last == 0 => "unheard",
        age if age <= SILENT_MS => "up",
        _ => "silent",
    };
    (state, last)
}

fn roles(facts: &MapFacts, system: &System) -> Vec<Role> {
    let roles = system.nodes.iter().filter(|n| n.id.starts_with("role/"));
    let role = |id: &str| {
        let (health, last) = health(facts, id);
        Role { name: phrase::name(id).to_owned(), health, note: phrase::ago(facts.now_ms, last) }
    };
    roles.map(|n| role(&n.id)).collect()
}

fn shapes(facts: &MapFacts, system: &System, layout: &layout::Layout) -> Vec<Shape> {
    let nodes: BTreeMap<&str, _> = system.nodes.iter().map(|n| (n.id.as_str(), n)).collect();
    let per_minute = |id: &str| facts.flows.iter().filter(|f| f.to == id).map(|f| f.allowed).sum::<u64>();
    let make = |(id, spot): (&String, &layout::Spot)| {
        let node = nodes.get(id.as_str());
        let queue = facts.queues.iter().find(|q| phrase::kind(id) == "queue" && q.queue == phrase::name(id));
        let owner = node.map_or("", |n| n.owner.as_str());
        let under = match (phrase::kind(id), queue) {
            (INTERNET, _) => "anybody at all".to_owned(),
            ("queue", Some(q)) => {
                let dead = if q.dead > 0 { format!(" · {} dead", q.dead) } else { String::new() };
                format!("{} waiting · {} at work{dead}", q.waiting, q.in_flight)
            }
            ("service" | "pep", _) if !owner.is_empty() => format!("team {owner}"),
            ("role", _) => "TLS, sign-in, routing".to_owned(),
            (_, _) => node.map_or(String::new(), |n| n.class.clone()),
        };
        let class =
            node.filter(|n| !n.class.is_empty()).map(|n| format!("\ndata: {} ({})", n.class, phrase::sensitivity(n))).unwrap_or_default();
        let heard = match is_process(id) {
            true => format!("\nlast heard of: {}", phrase::ago(facts.now_ms, health(facts, id).1)),
            false => String::new(),
        };
        Shape {
            x: format!("{:.1}", spot.x - NODE_W / 2.0),
            y: format!("{:.1}", spot.y - NODE_H / 2.0),
            kind: phrase::kind(id).to_owned(),
            title: if id == INTERNET { "Internet".to_owned() } else { phrase::short(phrase::name(id), 15) },
            under: phrase::short(&under, 26),
            tip: format!("{id}{class}{heard}"),
            sensitivity: node.map_or(0, |n| n.sensitivity),
            untrusted: node.is_some_and(|n| n.untrusted_input),
            guarded: phrase::kind(id) == "service",
            health: if is_process(id) { health(facts, id).0 } else { "" },
            busy: per_minute(id) > 0,
        }
    };
    layout.spots.iter().map(make).collect()
}

fn lines(facts: &MapFacts, system: &System, layout: &layout::Layout) -> (Vec<Line>, Vec<String>) {
    let on_map = |id: &str| layout.spots.contains_key(id);
    let mut declared: BTreeMap<(String, String), Vec<&str>> = BTreeMap::new();
    for flow in system.flows.iter().filter(|f| on_map(&f.from) && on_map(&f.to)) {
        declared.entry((flow.from.clone(), flow.to.clone())).or_default().extend(flow.actions.iter().map(String::as_str));
    }
    if facts.system.is_some() {
        declared.entry((INTERNET.to_owned(), EDGE.to_owned())).or_default();
    }
    let mut live: BTreeMap<(String, String), &LiveFlow> = BTreeMap::new();
    let mut alerts = Vec::new();
    for flow in facts.flows.iter().filter(|f| on_map(&f.from) && on_map(&f.to) && f.from != f.to) {
        let pair = (flow.from.clone(), flow.to.clone());
        let ours = flow.from.starts_with("role/") || flow.from == INTERNET;
        if flow.allowed > 0 && !declared.contains_key(&pair) && !ours {
            alerts.push(format!(
                "{} called {} {} times in the last minute, which no flow of the manifest declares",
                flow.from, flow.to, flow.allowed
            ));
        }
        live.insert(pair, flow);
    }
    let pairs: Vec<(String, String)> = declared.keys().chain(live.keys().filter(|pair| !declared.contains_key(*pair))).cloned().collect();
    let routes = layout::route(layout, &pairs);
    let mut taken: Vec<Area> = layout.spots.values().map(|spot| Area::around(*spot, NODE_W, NODE_H)).collect();
    let mut lines = Vec::new();
    for (pair, route) in pairs.iter().zip(routes) {
        let Some(route) = route else { continue };
        let flow = live.get(pair);
        let (allowed, denied) = flow.map_or((0, 0), |f| (f.allowed, f.denied));
        let state = match declared.contains_key(pair) {
            _ if denied > 0 => "denied",
            false if pair.0.starts_with("role/") && allowed > 0 => "live",
            false => "undeclared",
            true if allowed > 0 => "live",
            true => "quiet",
        };
        let label = match (allowed, denied) {
            (0, 0) => String::new(),
            (a, 0) => format!("{a}/min"),
            (0, d) => format!("\u{2715}{d}"),
            (a, d) => format!("{a}/min \u{2715}{d}"),
        };
        let actions = declared.get(pair).map(|a| a.join(", ")).filter(|a| !a.is_empty()).map(|a| format!("\n{a}")).unwrap_or_default();
        let why = flow
            .map(|f| f.reasons.iter().map(|(r, n)| format!("\nrefused: {} ×{n}", phrase::reason(r))).collect::<String>())
            .unwrap_or_default();
        let wide = f64::from(u32::try_from(label.chars().count()).unwrap_or(0)) * 6.4 + 12.0;
        let area = |spot: &layout::Spot| Area::around(*spot, wide, LABEL_H);
        let free = route.labels.iter().find(|spot| !taken.iter().any(|t| t.meets(&area(spot)))).or(route.labels.first());
        let Some(label_at) = free.copied() else { continue };
        if !label.is_empty() {
            taken.push(area(&label_at));
        }
        lines.push(Line {
            path: route.data,
            state,
            label,
            label_x: format!("{:.1}", label_at.x),
            label_y: format!("{:.1}", label_at.y),
            label_w: format!("{wide:.1}"),
            label_left: format!("{:.1}", wide / -2.0),
            tip: format!("{} → {}{actions}{why}", pair.0, pair.1),
        });
    }
    // What matters most is drawn last, on top.
    lines.sort_by_key(|line| ["quiet", "live", "denied", "undeclared"].iter().position(|s| *s == line.state));
    (lines, alerts)
}

pub(crate) fn reasons(facts: &MapFacts) -> Vec<(String, String, u64)> {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for refusal in &facts.refusals {
        let sum = sums.entry(&refusal.reason).or_default();
        *sum = sum.saturating_add(refusal.count);
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    sums.into_iter().take(8).map(|(code, count)| (code.to_owned(), phrase::reason(code), count)).collect()
}

/// Refusals of the last 24 hours as bars of a picture 24 units wide and 100 high.
pub(crate) fn chart(facts: &MapFacts) -> Chart {
    const HOUR_MS: u64 = 3_600_000;
    let this_hour = facts.now_ms / HOUR_MS;
    let count = |hour: u64| facts.refusals.iter().filter(|r| r.hour_ms / HOUR_MS == hour).map(|r| r.count).sum::<u64>();
    let hours: Vec<u64> = (0..24).rev().map(|back| this_hour.saturating_sub(back)).collect();
    let most = hours.iter().map(|h| count(*h)).max().unwrap_or(0);
    let bars = hours.iter().zip(0_u32..).map(|(hour, at)| {
        let n = count(*hour);
        let tall = if most == 0 { 0 } else { n.saturating_mul(96) / most.max(1) }.max(u64::from(n > 0) * 3);
        Bar {
            x: at.to_string(),
            y: 100_u64.saturating_sub(tall).to_string(),
            h: tall.to_string(),
            label: phrase::hour(hour.saturating_mul(HOUR_MS)),
            tip: format!("{}: {n} refused", phrase::hour(hour.saturating_mul(HOUR_MS))),
        }
    });
    Chart { bars: bars.collect(), most, total: facts.refusals.iter().map(|r| r.count).sum() }
}
