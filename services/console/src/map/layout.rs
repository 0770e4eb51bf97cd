//! Where things stand on the map: services on the middle line, in the order in which data passes; queues above, buckets below.
//!
//! Deterministic: the same system is always drawn the same way, so that a person recognises it.

use std::collections::{BTreeMap, BTreeSet};

use contract::control::System;

/// Width of a node.
pub(crate) const NODE_W: f64 = 152.0;
/// Height of a node.
pub(crate) const NODE_H: f64 = 62.0;
const COLUMN: f64 = 234.0;
const MARGIN: f64 = 96.0;
const ROW_TOP: f64 = 92.0;
const ROW_MIDDLE: f64 = 286.0;
const ROW_BOTTOM: f64 = 480.0;
/// Height of the picture.
pub(crate) const HEIGHT: f64 = 560.0;

/// The node that stands for everybody outside.
pub(crate) const INTERNET: &str = "internet";
/// The edge's node.
pub(crate) const EDGE: &str = "role/edge";

/// Centre of a node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spot {
    pub(crate) x: f64,
    pub(crate) y: f64,
}

/// All nodes' places, and the picture's width.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) spots: BTreeMap<String, Spot>,
    pub(crate) width: f64,
}

/// Places everything that is drawn as a node of the flow: not Palisade's own roles but the edge.
pub(crate) fn lay_out(system: &System) -> Layout {
    let flows: Vec<(&str, &str)> = system.flows.iter().map(|f| (f.from.as_str(), f.to.as_str())).collect();
    let depth = depths(&flows);
    let mut line: Vec<&str> = system.nodes.iter().map(|n| n.id.as_str()).filter(|id| id.starts_with("service/")).collect();
    // Of those equally far from the edge, who calls others comes before who is called.
    let among = line.clone();
    let calls = |id: &str| flows.iter().filter(|(from, to)| *from == id && among.contains(to)).count();
    line.sort_by_key(|id| (depth.get(*id).copied().unwrap_or(u32::MAX), std::cmp::Reverse(calls(id)), *id));
    let mut spots = BTreeMap::new();
    let middle = [INTERNET, EDGE].into_iter().chain(line);
    for (x, id) in std::iter::successors(Some(MARGIN), |x| Some(x + COLUMN)).zip(middle) {
        spots.insert(id.to_owned(), Spot { x, y: ROW_MIDDLE });
    }
    for (prefix, y) in [("queue/", ROW_TOP), ("bucket/", ROW_BOTTOM)] {
        let ids: Vec<&str> = system.nodes.iter().map(|n| n.id.as_str()).filter(|id| id.starts_with(prefix)).collect();
        for (id, x) in spread(&ids, &flows, &spots) {
            spots.insert(id.to_owned(), Spot { x, y });
        }
    }
    // Whatever else the system has (secrets, hosts outside) stands at the end of the lower line.
    let mut last = spots.values().filter(|s| s.y > ROW_MIDDLE).map(|s| s.x).fold(MARGIN, f64::max);
    for node in &system.nodes {
        if !spots.contains_key(&node.id) && !node.id.starts_with("role/") {
            last += NODE_W + 28.0;
            spots.insert(node.id.clone(), Spot { x: last, y: ROW_BOTTOM });
        }
    }
    let width = spots.values().map(|s| s.x).fold(0.0, f64::max) + MARGIN;
    Layout { spots, width }
}

/// Length of the shortest way from the edge to each node, against which services are ordered.
fn depths<'a>(flows: &[(&'a str, &'a str)]) -> BTreeMap<&'a str, u32> {
    let mut depth = BTreeMap::from([(INTERNET, 0), (EDGE, 1)]);
    let mut wave: BTreeSet<&str> = BTreeSet::from([INTERNET, EDGE]);
    let mut distance = 1_u32;
    while !wave.is_empty() {
        distance = distance.saturating_add(1);
        let next: BTreeSet<&str> =
            flows.iter().filter(|(from, to)| wave.contains(from) && !depth.contains_key(to)).map(|(_, to)| *to).collect();
        depth.extend(next.iter().map(|id| (*id, distance)));
        wave = next;
    }
    depth
}

/// Each as near as it can be to the middle of those that it is connected with, none over another.
fn spread<'a>(ids: &[&'a str], flows: &[(&str, &str)], spots: &BTreeMap<String, Spot>) -> Vec<(&'a str, f64)> {
    const GAP: f64 = NODE_W + 36.0;
    let wish = |id: &str| {
        let others = flows.iter().filter_map(|(from, to)| {
            if *from == id {
                Some(to)
            } else if *to == id {
                Some(from)
            } else {
                None
            }
        });
        let xs: Vec<f64> = others.filter_map(|other| spots.get(*other)).filter(|s| s.y == ROW_MIDDLE).map(|s| s.x).collect();
        let count = u32::try_from(xs.len()).unwrap_or(1).max(1);
        if xs.is_empty() { MARGIN + 2.0 * COLUMN } else { xs.iter().sum::<f64>() / f64::from(count) }
    };
    let mut placed: Vec<(&str, f64)> = ids.iter().map(|id| (*id, wish(id))).collect();
    placed.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(b.0)));
    let wished: f64 = placed.iter().map(|(_, x)| *x).sum();
    let mut least = f64::MIN;
    for (_, x) in &mut placed {
        *x = x.max(least);
        least = *x + GAP;
    }
    // Pushing right moved the group; move it back by the mean, as far as the picture's edge allows.
    let count = u32::try_from(placed.len()).unwrap_or(1).max(1);
    let shift = (placed.iter().map(|(_, x)| *x).sum::<f64>() - wished) / f64::from(count);
    let room = placed.first().map_or(0.0, |(_, x)| x - MARGIN).max(0.0);
    for (_, x) in &mut placed {
        *x -= shift.min(room);
    }
    placed
}

/// Which side of a node a line leaves or enters by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Left,
    Right,
    Top,
    Bottom,
}

/// One end of a line at a side of a node, and the coordinate that it leads toward.
struct Port {
    toward: f64,
    line: usize,
    leaving: bool,
}

/// A line, and where its label may stand, best first.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) data: String,
    pub(crate) labels: Vec<Spot>,
}

/// The lines between pairs of nodes.
pub(crate) fn route(layout: &Layout, pairs: &[(String, String)]) -> Vec<Option<Path>> {
    let ends = |pair: &(String, String)| {
        let (a, b) = (layout.spots.get(&pair.0)?, layout.spots.get(&pair.1)?);
        Some((*a, *b, sides(*a, *b)))
    };
    // Lines that share a side of a node are spread along it, in the order of where they lead.
    let mut ports: BTreeMap<(&str, Side), Vec<Port>> = BTreeMap::new();
    for (at, pair) in pairs.iter().enumerate() {
        if let Some((a, b, (leave, enter))) = ends(pair) {
            ports.entry((&pair.0, leave)).or_default().push(Port { toward: toward(leave, b), line: at, leaving: true });
            ports.entry((&pair.1, enter)).or_default().push(Port { toward: toward(enter, a), line: at, leaving: false });
        }
    }
    let mut offsets: BTreeMap<(usize, bool), f64> = BTreeMap::new();
    for ((_, side), lines) in &mut ports {
        lines.sort_by(|x, y| x.toward.total_cmp(&y.toward).then(x.line.cmp(&y.line)));
        let count = f64::from(u32::try_from(lines.len()).unwrap_or(1));
        let length = if matches!(side, Side::Left | Side::Right) { NODE_H } else { NODE_W };
        for (place, end) in (1_u32..).zip(lines.iter()) {
            offsets.insert((end.line, end.leaving), length * (f64::from(place) / (count + 1.0) - 0.5));
        }
    }
    let offset = |at: usize, leaving: bool| offsets.get(&(at, leaving)).copied().unwrap_or(0.0);
    let drawn = pairs.iter().enumerate().map(|(at, pair)| {
        let (a, b, (leave, enter)) = ends(pair)?;
        Some(curve(port(a, leave, offset(at, true)), leave, port(b, enter, offset(at, false)), enter, layout))
    });
    drawn.collect()
}

fn toward(side: Side, other: Spot) -> f64 {
    if matches!(side, Side::Left | Side::Right) { other.y } else { other.x }
}

fn sides(a: Spot, b: Spot) -> (Side, Side) {
    let dx = b.x - a.x;
    if (a.y - b.y).abs() > 1.0 {
        return if a.y > b.y { (Side::Top, Side::Bottom) } else { (Side::Bottom, Side::Top) };
    }
    match dx {
        dx if dx > 0.0 && dx < COLUMN * 1.5 => (Side::Right, Side::Left),
        dx if dx < 0.0 && dx > -COLUMN * 1.5 && a.y != ROW_MIDDLE => (Side::Left, Side::Right),
        dx if dx > 0.0 => (Side::Bottom, Side::Bottom),
        _ => (Side::Top, Side::Top),
    }
}

fn port(at: Spot, side: Side, offset: f64) -> Spot {
    match side {
        Side::Left => Spot { x: at.x - NODE_W / 2.0, y: at.y + offset },
        Side::Right => Spot { x: at.x + NODE_W / 2.0, y: at.y + offset },
        Side::Top => Spot { x: at.x + offset, y: at.y - NODE_H / 2.0 },
        Side::Bottom => Spot { x: at.x + offset, y: at.y + NODE_H / 2.0 },
    }
}

fn curve(a: Spot, leave: Side, b: Spot, enter: Side, layout: &Layout) -> Path {
    let crosses = (a.y > ROW_MIDDLE && b.y < ROW_MIDDLE) || (a.y < ROW_MIDDLE && b.y > ROW_MIDDLE);
    if crosses {
        // Between a bucket and a queue: through the gap between two services.
        let wish = f64::midpoint(a.x, b.x);
        let gaps = layout.spots.values().filter(|s| s.y == ROW_MIDDLE).map(|s| s.x + COLUMN / 2.0);
        let gap = gaps.min_by(|x, y| (x - wish).abs().total_cmp(&(y - wish).abs())).unwrap_or(wish);
        let bend = (b.y - a.y) * 0.24;
        let middle = Spot { x: gap, y: ROW_MIDDLE };
        let first = Cubic([a, Spot { x: a.x, y: a.y + bend }, Spot { x: gap, y: ROW_MIDDLE - bend }, middle]);
        let second = Cubic([middle, Spot { x: gap, y: ROW_MIDDLE + bend }, Spot { x: b.x, y: b.y - bend }, b]);
        let labels = [first.at(0.9), second.at(0.3), first.at(0.6), second.at(0.6)].to_vec();
        return Path { data: format!("{}{}", first.data(true), second.data(false)), labels };
    }
    let pull = match (leave, enter) {
        (Side::Bottom, Side::Bottom) | (Side::Top, Side::Top) => 34.0 + (b.x - a.x).abs() * 0.09,
        (Side::Left | Side::Right, _) => (b.x - a.x).abs() * 0.45,
        _ => (b.y - a.y).abs() * 0.5,
    };
    let pulled = |from: Spot, side: Side| match side {
        Side::Left => Spot { x: from.x - pull, y: from.y },
        Side::Right => Spot { x: from.x + pull, y: from.y },
        Side::Top => Spot { x: from.x, y: from.y - pull },
        Side::Bottom => Spot { x: from.x, y: from.y + pull },
    };
    let line = Cubic([a, pulled(a, leave), pulled(b, enter), b]);
    Path { data: line.data(true), labels: [0.5, 0.38, 0.62, 0.28, 0.72, 0.2, 0.8].map(|t| line.at(t)).to_vec() }
}

/// A cubic Bézier curve.
struct Cubic([Spot; 4]);

impl Cubic {
    fn at(&self, t: f64) -> Spot {
        let [a, b, c, d] = self.0;
        let u = 1.0 - t;
        let mix = |a: f64, b: f64, c: f64, d: f64| u * u * u * a + 3.0 * u * u * t * b + 3.0 * u * t * t * c + t * t * t * d;
        Spot { x: mix(a.x, b.x, c.x, d.x), y: mix(a.y, b.y, c.y, d.y) }
    }
    fn data(&self, start: bool) -> String {
        let [a, b, c, d] = self.0;
        let start = if start { format!("M{:.1} {:.1}", a.x, a.y) } else { String::new() };
        format!("{start}C{:.1} {:.1} {:.1} {:.1} {:.1} {:.1}", b.x, b.y, c.x, c.y, d.x, d.y)
    }
}

/// A rectangle that a label must not cover.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Area {
    centre: Spot,
    w: f64,
    h: f64,
}

impl Area {
    /// The rectangle of that size around a point.
    pub(crate) fn around(centre: Spot, w: f64, h: f64) -> Self {
        Self { centre, w, h }
    }
    /// Whether two rectangles share a point.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        let near = |a: f64, b: f64, lengths: f64| (a - b).abs() * 2.0 < lengths;
        near(self.centre.x, other.centre.x, self.w + other.w) && near(self.centre.y, other.centre.y, self.h + other.h)
    }
}
