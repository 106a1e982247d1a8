//! Where a VM's memory is, in its VMM's addresses and in the memory file.

use serde::Deserialize;

use crate::{
    LayoutError,
    memory::{HUGE, SMALL},
};

/// The most regions that a VM may have.
pub const MAX_REGIONS: usize = 64;

/// A region of a VM's memory, as Firecracker describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Region {
    /// Its address in the VMM.
    #[serde(rename = "base_host_virt_addr")]
    pub address: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Where it is in the memory file, in bytes.
    pub offset: u64,
    /// The size of its pages: 4096 bytes or 2 MiB.
    pub page_size: u64,
}

/// Regions that fit each other and the memory file.
///
/// A page is known by its number in the *file*: it is in one region at most.
#[derive(Debug)]
pub(crate) struct Layout {
    /// By address.
    regions: Vec<Region>,
    page_size: u64,
}

impl Layout {
    /// Checks regions, which come from who is not trusted.
    pub(crate) fn new(regions: &[Region], memory: u64) -> Result<Self, LayoutError> {
        let Some(first) = regions.first().filter(|_| regions.len() <= MAX_REGIONS) else {
            return Err(LayoutError::Count(regions.len()));
        };
        let page_size = first.page_size;
        if ![SMALL, HUGE].contains(&page_size) {
            return Err(LayoutError::PageSize(page_size));
        }
        for (index, region) in regions.iter().enumerate() {
            let Region { address, size, offset, .. } = *region;
            if region.page_size != page_size {
                return Err(LayoutError::Mixed);
            }
            if size == 0 || [address, size, offset].iter().any(|value| !value.is_multiple_of(page_size)) {
                return Err(LayoutError::Unaligned(index));
            }
            if address.checked_add(size).is_none() {
                return Err(LayoutError::Overflow(index));
            }
            if offset.checked_add(size).is_none_or(|end| end > memory) {
                return Err(LayoutError::Outside(index));
            }
        }
        let mut regions = regions.to_vec();
        regions.sort_by_key(|region| region.offset);
        let overlap = regions.windows(2).any(|pair| pair[0].offset + pair[0].size > pair[1].offset);
        regions.sort_by_key(|region| region.address);
        if overlap || regions.windows(2).any(|pair| pair[0].address + pair[0].size > pair[1].address) {
            return Err(LayoutError::Overlap);
        }
        Ok(Self { regions, page_size })
    }

    pub(crate) fn page_size(&self) -> u64 {
        self.page_size
    }

    /// The page at an address.
    pub(crate) fn page_at(&self, address: u64) -> Option<usize> {
        let index = self.regions.partition_point(|region| region.address <= address).checked_sub(1)?;
        let region = self.regions[index];
        let within = address - region.address;
        (within < region.size).then(|| ((region.offset + within) / self.page_size) as usize)
    }

    /// The region that a page is in: its address, and its pages.
    pub(crate) fn region_of(&self, page: usize) -> Option<(u64, std::ops::Range<usize>)> {
        let offset = page as u64 * self.page_size;
        let region = self
            .regions
            .iter()
            .find(|region| region.offset <= offset && offset - region.offset < region.size)?;
        let first = (region.offset / self.page_size) as usize;
        Some((region.address, first..first + (region.size / self.page_size) as usize))
    }

    /// The pages that are wholly within a range of addresses, region by region.
    pub(crate) fn pages_within(
        &self,
        start: u64,
        end: u64,
    ) -> impl Iterator<Item = std::ops::Range<usize>> + use<'_> {
        let size = self.page_size;
        self.regions.iter().filter_map(move |region| {
            let start = start.max(region.address);
            let end = end.min(region.address + region.size);
            if start >= end {
                return None;
            }
            let page = |address: u64| (region.offset + (address - region.address)) / size;
            let first = page(start.next_multiple_of(size).min(region.address + region.size)) as usize;
            let past = page(end / size * size) as usize;
            (first < past).then_some(first..past)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const MEMORY: u64 = 1 << 30;

    fn region(address: u64, size: u64, offset: u64) -> Region {
        Region { address, size, offset, page_size: SMALL }
    }

    #[test]
    fn what_firecracker_says_is_taken() {
        let regions = [region(0x7000_0000, 0x8000, 0), region(0x9000_0000, 0x4000, 0x8000)];
        let layout = Layout::new(&regions, 0xc000).unwrap();
        assert_eq!(layout.page_at(0x7000_0fff), Some(0));
        assert_eq!(layout.page_at(0x7000_7000), Some(7));
        assert_eq!(layout.page_at(0x7000_8000), None);
        assert_eq!(layout.page_at(0x9000_0000), Some(8));
        assert_eq!(layout.page_at(0), None);
        assert_eq!(layout.region_of(9), Some((0x9000_0000, 8..12)));
        assert_eq!(layout.region_of(12), None);
        let within: Vec<_> = layout.pages_within(0x7000_6800, u64::MAX).collect();
        assert_eq!(within, [7..8, 8..12]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        use LayoutError as E;
        let many = [region(0, SMALL, 0); MAX_REGIONS + 1];
        let huge = Region { page_size: HUGE, ..region(HUGE, HUGE, 0) };
        let cases: [(&[Region], LayoutError); 12] = [
            (&[], E::Count(0)),
            (&many, E::Count(65)),
            (&[Region { page_size: 0, ..region(0, 1, 0) }], E::PageSize(0)),
            (&[Region { page_size: 8192, ..region(0, 8192, 0) }], E::PageSize(8192)),
            (&[huge, region(0, SMALL, HUGE)], E::Mixed),
            (&[region(0, 0, 0)], E::Unaligned(0)),
            (&[region(1, SMALL, 0)], E::Unaligned(0)),
            (&[Region { size: SMALL, ..huge }], E::Unaligned(0)),
            (&[region(0u64.wrapping_sub(SMALL), SMALL, 0)], E::Overflow(0)),
            (&[region(0, SMALL, MEMORY)], E::Outside(0)),
            (&[region(0, 2 * SMALL, 0), region(SMALL, SMALL, 2 * SMALL)], E::Overlap),
            (&[region(0, 2 * SMALL, 0), region(MEMORY, SMALL, SMALL)], E::Overlap),
        ];
        for (regions, error) in cases {
            assert_eq!(Layout::new(regions, MEMORY).unwrap_err(), error, "{regions:?}");
        }
        let end = region(0, SMALL, 0u64.wrapping_sub(SMALL));
        assert_eq!(Layout::new(&[end], MEMORY).unwrap_err(), E::Outside(0));
    }

    proptest! {
        /// Whatever is taken has each page at one address, within the file.
        #[test]
        fn pages_and_addresses_agree(parts in vec((0_u64..40, 1_u64..9, 0_u64..40), 1..6)) {
            let regions: Vec<_> =
                parts.iter().map(|(at, size, offset)| region(at * SMALL, size * SMALL, offset * SMALL)).collect();
            if let Ok(layout) = Layout::new(&regions, 48 * SMALL) {
                for page in 0..48 {
                    if let Some((address, pages)) = layout.region_of(page) {
                        let at = address + (page - pages.start) as u64 * SMALL;
                        prop_assert_eq!(layout.page_at(at), Some(page));
                        let found: Vec<_> = layout.pages_within(at, at + SMALL).flatten().collect();
                        prop_assert_eq!(found, [page]);
                    }
                }
            }
        }
    }
}
