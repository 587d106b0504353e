//! Pages of entries.

/// Collects entries while they fit a page; also tells whether all did.
pub(super) fn fill<'a, T: Clone + 'a>(
    entries: impl Iterator<Item = &'a T>,
    size: impl Fn(&T) -> usize,
    max_entries: usize,
    max_bytes: usize,
) -> (Vec<T>, bool) {
    let mut page = Vec::new();
    let mut bytes = 0usize;
    for entry in entries {
        bytes = bytes.saturating_add(size(entry));
        if page.len() >= max_entries || (bytes > max_bytes && !page.is_empty()) {
            return (page, false);
        }
        page.push(entry.clone());
    }
    (page, true)
}
