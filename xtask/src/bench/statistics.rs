//! Medians and spread.

use std::fmt;

/// What came of measuring the same thing several times.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spread {
    sorted: Vec<f64>,
    digits: usize,
}

impl Spread {
    /// Of these values, shown with so many digits after the point.
    pub(super) fn of(values: impl IntoIterator<Item = f64>, digits: usize) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        Self { sorted, digits }
    }

    /// The median; of two in the middle, their mean.
    pub(super) fn median(&self) -> f64 {
        let middle = self.sorted.len() / 2;
        match self.sorted[..] {
            [] => f64::NAN,
            _ if self.sorted.len().is_multiple_of(2) => self.sorted[middle - 1].midpoint(self.sorted[middle]),
            _ => self.sorted[middle],
        }
    }
}

/// The median, and the lowest and highest value.
impl fmt::Display for Spread {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (digits, median) = (self.digits, self.median());
        match self.sorted[..] {
            [] => write!(out, "–"),
            [_] => write!(out, "{median:.digits$}"),
            [low, .., high] => write!(out, "{median:.digits$} ({low:.digits$} to {high:.digits$})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_stands_before_the_extremes() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0], 1).to_string(), "2.0 (1.0 to 3.0)");
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0], 1).to_string(), "2.5 (1.0 to 4.0)");
        assert_eq!(Spread::of([1.5], 0).to_string(), "2");
        assert_eq!(Spread::of([], 0).to_string(), "–");
    }
}
