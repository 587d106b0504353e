//! The course of a figure in one line of block characters.

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The last `width` values, each as high as it is beside the greatest of them. The lowest block is for
/// nothing alone, and a space for what was not taken.
pub(crate) fn sparkline(values: &[Option<f64>], width: usize) -> String {
    let shown = &values[values.len().saturating_sub(width)..];
    let greatest = shown.iter().flatten().copied().fold(0.0, f64::max);
    shown.iter().map(|value| value.map_or(' ', |value| block(value, greatest))).collect()
}

fn block(value: f64, greatest: f64) -> char {
    if value <= 0.0 || greatest <= 0.0 {
        return BLOCKS[0];
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 7")]
    let height = (value / greatest * 7.0).ceil() as usize;
    BLOCKS[height.clamp(1, 7)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_shows_the_last_values_by_their_greatest() {
        let values = [90.0, 0.0, 0.01, 3.5, 7.0].map(Some);
        assert_eq!(sparkline(&values, 4), "▁▂▅█", "the first one has no part in it");
        assert_eq!(sparkline(&[Some(0.0), None, Some(0.0)], 9), "▁ ▁");
        assert_eq!(sparkline(&values, 0), "");
        assert_eq!(sparkline(&[], 9), "");
    }
}
