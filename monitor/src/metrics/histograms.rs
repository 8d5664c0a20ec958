//! Histograms that share their labels, in one piece of memory: whole numbers (nanoseconds, octets), of which one writer
//! at a time counts with plain additions.
//!
//! The metrics library's histograms are made for many writers: each observation there takes locked instructions and
//! floating-point sums, and each histogram of a label set lies elsewhere.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// What a histogram's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Counted in nanoseconds, told in seconds.
    Seconds,
    /// Counted and told in octets.
    Octets,
}

impl Unit {
    /// How many counted make one that is told.
    fn parts(self) -> f64 {
        match self {
            Self::Seconds => 1e9,
            Self::Octets => 1.0,
        }
    }

    /// A bound, which is positive, as counted.
    #[expect(clippy::cast_sign_loss, reason = "bounds are positive")]
    fn count(self, bound: f64) -> u64 {
        // What a bound lacks to a whole number is a float's rounding.
        (bound * self.parts() + 1e-3) as u64
    }
}

/// A histogram's name, meaning and bounds.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) unit: Unit,
    pub(super) bounds: Vec<f64>,
}

/// What of a [`Shape`] is needed to count and to tell.
#[derive(Debug)]
struct Counting {
    shape: Shape,
    limits: Limits,
    /// Where its buckets begin, among all numbers of a label set.
    buckets: usize,
}

/// Bounds, as counted, in order.
#[derive(Debug)]
struct Limits {
    limits: Box<[u64]>,
    /// Where those begin that have so many bits. Bounds lie so that few have as many as each other.
    begin: [usize; u64::BITS as usize + 2],
}

impl Limits {
    fn new(limits: Box<[u64]>) -> Self {
        let begin = std::array::from_fn(|bits| limits.partition_point(|&limit| self::bits(limit) < bits));
        Self { limits, begin }
    }

    /// The bucket of a value: that of the first bound which it doesn't exceed.
    fn bucket(&self, value: u64) -> usize {
        let bits = bits(value);
        let (begin, end) = (self.begin[bits], self.begin[bits + 1]);
        begin + self.limits[begin..end].partition_point(|&limit| limit < value)
    }

    fn len(&self) -> usize {
        self.limits.len()
    }
}

/// How many bits a number has, without leading zeroes.
fn bits(value: u64) -> usize {
    (u64::BITS - value.leading_zeros()) as usize
}

/// Histograms of the same labels.
pub(super) struct Histograms {
    /// The labels' names, in order.
    names: Vec<&'static str>,
    /// Which of the values as they are given comes at each place of that order.
    order: Vec<usize>,
    countings: Arc<[Counting]>,
    sets: BTreeMap<Vec<String>, Observations>,
}

/// The numbers of one label set: for each histogram its sum, then for each its buckets.
#[derive(Clone)]
pub(super) struct Observations {
    countings: Arc<[Counting]>,
    numbers: Arc<[AtomicU64]>,
    /// `name="value",…`, as the text formats have it.
    labels: Arc<str>,
}

impl Histograms {
    /// With label names in the order in which values will be given.
    pub(super) fn new(labels: &[&'static str], shapes: Vec<Shape>) -> Self {
        let mut order: Vec<usize> = (0..labels.len()).collect();
        order.sort_unstable_by_key(|&index| labels[index]);
        let mut next = shapes.len();
        let countings = shapes.into_iter().map(|shape| {
            let limits: Box<[u64]> = shape.bounds.iter().map(|bound| shape.unit.count(*bound)).collect();
            let buckets = next;
            next += limits.len() + 1;
            Counting { shape, limits: Limits::new(limits), buckets }
        });
        Self {
            names: order.iter().map(|&index| labels[index]).collect(),
            countings: countings.collect(),
            order,
            sets: BTreeMap::new(),
        }
    }

    /// The numbers of a label set, which begin at 0.
    pub(super) fn of(&mut self, values: &[&str]) -> Observations {
        let values: Vec<String> = self.order.iter().map(|&index| values[index].to_owned()).collect();
        let Self { names, countings, sets, .. } = self;
        let observations = sets.entry(values).or_insert_with_key(|values| {
            let labels: Vec<String> = names
                .iter()
                .zip(values)
                .map(|(name, value)| {
                    let value = value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"");
                    format!("{name}=\"{value}\"")
                })
                .collect();
            let len = countings.last().map_or(0, |last| last.buckets + last.limits.len() + 1);
            Observations {
                countings: Arc::clone(countings),
                numbers: (0..len).map(|_| AtomicU64::new(0)).collect(),
                labels: labels.join(",").into(),
            }
        });
        observations.clone()
    }

    /// Everything as it is now, for [`Told`].
    pub(super) fn tell(&self) -> Vec<Told> {
        let sets: Arc<[Set]> = self
            .sets
            .values()
            .map(|set| Set {
                labels: Arc::clone(&set.labels),
                numbers: set.numbers.iter().map(|number| number.load(Ordering::Relaxed)).collect(),
            })
            .collect();
        if sets.is_empty() {
            return Vec::new();
        }
        let one = |index| Told { countings: Arc::clone(&self.countings), index, sets: Arc::clone(&sets) };
        (0..self.countings.len()).map(one).collect()
    }

    /// Everything as it is now, as the metrics library has it.
    pub(super) fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Vec::new();
        for (index, counting) in self.countings.iter().enumerate() {
            let metrics: Vec<Metric> = self
                .sets
                .iter()
                .map(|(values, set)| {
                    let labels = self.names.iter().zip(values).map(|(name, value)| {
                        let mut pair = LabelPair::default();
                        pair.set_name((*name).to_owned());
                        pair.set_value(value.clone());
                        pair
                    });
                    let number = |at: usize| set.numbers[at].load(Ordering::Relaxed);
                    let mut total = 0;
                    let buckets = counting.shape.bounds.iter().enumerate().map(|(place, &bound)| {
                        total += number(counting.buckets + place);
                        let mut bucket = Bucket::default();
                        bucket.set_upper_bound(bound);
                        bucket.set_cumulative_count(total);
                        bucket
                    });
                    let mut histogram = Histogram::default();
                    histogram.set_bucket(buckets.collect());
                    histogram.set_sample_count(total + number(counting.buckets + counting.limits.len()));
                    histogram.set_sample_sum(number(index) as f64 / counting.shape.unit.parts());
                    let mut metric = Metric::from_label(labels.collect());
                    metric.set_histogram(histogram);
                    metric
                })
                .collect();
            if metrics.is_empty() {
                continue;
            }
            let mut family = MetricFamily::default();
            family.set_name(counting.shape.name.to_owned());
            family.set_help(counting.shape.help.to_owned());
            family.set_field_type(MetricType::HISTOGRAM);
            family.set_metric(metrics);
            families.push(family);
        }
        families
    }

    /// The labels' names, as they were given.
    pub(super) fn labels(&self) -> impl Iterator<Item = &'static str> {
        let place = |given| self.order.iter().position(|&index| index == given);
        (0..self.names.len()).filter_map(move |given| Some(self.names[place(given)?]))
    }

    /// What each is.
    pub(super) fn shapes(&self) -> impl Iterator<Item = &Shape> {
        self.countings.iter().map(|counting| &counting.shape)
    }
}

impl Observations {
    /// The name of the histogram at this place among the shapes.
    pub(super) fn name(&self, histogram: usize) -> &'static str {
        self.countings[histogram].shape.name
    }

    /// The labels, as the text formats have them.
    pub(super) fn labels(&self) -> Arc<str> {
        Arc::clone(&self.labels)
    }

    /// Counts a value of the histogram at this place among the shapes, in nanoseconds or octets.
    pub(super) fn observe(&self, histogram: usize, value: u64) {
        let counting = &self.countings[histogram];
        let bucket = counting.limits.bucket(value);
        add(&self.numbers[histogram], value);
        add(&self.numbers[counting.buckets + bucket], 1);
    }
}

/// There is one writer at a time: it needs no locked instruction.
fn add(number: &AtomicU64, more: u64) {
    number.store(number.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

/// The numbers of one label set, at one moment.
struct Set {
    labels: Arc<str>,
    numbers: Box<[u64]>,
}

/// One histogram of all label sets, at one moment, to be written.
pub struct Told {
    countings: Arc<[Counting]>,
    index: usize,
    sets: Arc<[Set]>,
}

/// How the text formats write a histogram's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounds {
    /// `1` and `0.5`: Prometheus' text format.
    Plain,
    /// `1.0` and `0.5`: OpenMetrics.
    Floats,
}

impl Told {
    /// The metric's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.countings[self.index].shape.name
    }

    /// What it means.
    #[must_use]
    pub fn help(&self) -> &'static str {
        self.countings[self.index].shape.help
    }

    /// How many label sets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// Writes some label sets' lines.
    pub fn write(&self, out: &mut String, sets: std::ops::Range<usize>, bounds: Bounds) {
        use std::fmt::Write as _;
        let Counting { shape, limits, buckets } = &self.countings[self.index];
        let named: Vec<String> = shape
            .bounds
            .iter()
            .map(|bound| match bounds {
                Bounds::Plain => bound.to_string(),
                Bounds::Floats => format!("{bound:?}"),
            })
            .chain(["+Inf".to_owned()])
            .collect();
        let mut digits = itoa::Buffer::new();
        for set in &self.sets[sets] {
            let mut total = 0;
            for (bound, count) in named.iter().zip(&set.numbers[*buckets..=buckets + limits.len()]) {
                total += count;
                for part in
                    [shape.name, "_bucket{", &set.labels, ",le=\"", bound, "\"} ", digits.format(total), "\n"]
                {
                    out.push_str(part);
                }
            }
            let sum = set.numbers[self.index] as f64 / shape.unit.parts();
            let _ = writeln!(out, "{}_sum{{{}}} {sum}", shape.name, set.labels);
            let _ = writeln!(out, "{}_count{{{}}} {total}", shape.name, set.labels);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Histograms {
        let shape = |name, unit, bounds: &[f64]| Shape { name, help: "h", unit, bounds: bounds.to_vec() };
        Histograms::new(
            &["route", "code"],
            vec![
                shape("time_seconds", Unit::Seconds, &[0.001, 0.0025, 1.0]),
                shape("size_bytes", Unit::Octets, &[100.0]),
            ],
        )
    }

    #[test]
    fn a_value_belongs_to_the_first_bound_that_it_does_not_exceed() {
        let bounds = [1, 2, 3, 4, 5, 7, 8, 100, 1 << 40, (1 << 40) + 1, u64::MAX - 1];
        let limits = Limits::new(bounds.into());
        let around = bounds.iter().flat_map(|bound| [bound - 1, *bound, bound + 1]);
        for value in around.chain([0, 1 << 20, 1 << 41, u64::MAX]) {
            let expected = bounds.iter().filter(|bound| **bound < value).count();
            assert_eq!(limits.bucket(value), expected, "{value}");
        }
        assert_eq!(Limits::new([].into()).bucket(7), 0);
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let mut histograms = two();
        let observations = histograms.of(&["/a", "200"]);
        for nanoseconds in [1_000_000, 1_000_001, 2_500_000, 2_500_001, 1_000_000_000, 1_000_000_001] {
            observations.observe(0, nanoseconds);
        }
        let family = &histograms.collect()[0];
        let histogram = family.get_metric()[0].get_histogram();
        let counts: Vec<_> = histogram.get_bucket().iter().map(Bucket::cumulative_count).collect();
        assert_eq!((counts, histogram.get_sample_count()), (vec![1, 3, 5], 6));
        assert_eq!(histogram.get_sample_sum(), 2.007_000_003);
    }

    #[test]
    fn what_is_written_is_what_the_library_writes_of_what_is_collected() {
        let mut histograms = two();
        for (route, code, value) in [("/b\"\\\n", "200", 7), ("/a", "404", 2_000_000), ("/a", "200", 101)] {
            let observations = histograms.of(&[route, code]);
            observations.observe(0, value);
            observations.observe(1, value);
        }
        let library = prometheus::TextEncoder::new().encode_to_string(&histograms.collect()).unwrap();
        let mut written = String::new();
        for told in histograms.tell() {
            let (name, help) = (told.name(), told.help());
            written.extend(["# HELP ", name, " ", help, "\n# TYPE ", name, " histogram\n"]);
            told.write(&mut written, 0..1, Bounds::Plain);
            told.write(&mut written, 1..told.len(), Bounds::Plain);
        }
        assert_eq!(written, library);
    }

    #[test]
    fn the_same_labels_have_the_same_numbers() {
        let mut histograms = two();
        histograms.of(&["/a", "200"]).observe(1, 1);
        histograms.of(&["/a", "200"]).observe(1, 1);
        assert_eq!(histograms.collect()[1].get_metric()[0].get_histogram().get_sample_count(), 2);
    }
}
