//! What is written last: all metadata.

use std::os::unix::fs::MetadataExt;

use super::{
    BLOCK, BLOCK_BYTES, Ext4Error, Ext4Writer, Kind, SizePolicy, Stats,
    directory::{self, Record},
    extents::{self, Extent},
    inode::{self, Content, FAST_SYMLINK, Inode},
    superblock::{self, Descriptor, FIRST_INODE, Groups, RESERVED_DESCRIPTORS, ROOT_INODE},
    tree::{Body, MAX_LINKS, NodeId, Tree},
};

/// Every file with the number of its inode.
struct Numbers {
    /// In the order of their numbers: the root, and from the first free number on.
    order: Vec<NodeId>,
    /// By node; zero where there is none.
    numbers: Vec<u32>,
}

impl Numbers {
    /// Numbers files as a walk from the root meets them, so that neighbours are close.
    fn assign(tree: &Tree) -> Self {
        let mut numbers = vec![0; tree.slots()];
        numbers[NodeId::ROOT.index()] = ROOT_INODE;
        let mut order = vec![NodeId::ROOT];
        let mut next = FIRST_INODE;
        let mut pending = vec![NodeId::ROOT];
        while let Some(id) = pending.pop() {
            let Some(directory) = tree.directory(id) else { continue };
            let new = pending.len();
            for entry in directory.entries.values() {
                let number = &mut numbers[entry.node.index()];
                if *number != 0 {
                    continue;
                }
                *number = next;
                next += 1;
                order.push(entry.node);
                if tree.directory(entry.node).is_some() {
                    pending.push(entry.node);
                }
            }
            pending[new..].reverse();
        }
        Self { order, numbers }
    }

    fn of(&self, node: NodeId) -> u32 {
        self.numbers[node.index()]
    }

    /// The numbers used: those of files and those that are reserved.
    fn used(&self) -> u64 {
        u64::from(FIRST_INODE) - 1 + (self.order.len() as u64 - 1)
    }
}

impl Ext4Writer {
    /// Writes the metadata; the file system is then complete. The file is not synced.
    ///
    /// # Errors
    /// Where the image cannot be written or would be too large.
    pub fn finish(mut self, size: SizePolicy) -> Result<Stats, Ext4Error> {
        let (spare_blocks, spare_inodes) = match size {
            SizePolicy::Fit => (0, 0),
            SizePolicy::Spare { bytes, inodes } => (bytes.div_ceil(BLOCK_BYTES), u64::from(inodes)),
        };
        let numbers = Numbers::assign(&self.tree);
        let inodes = numbers.used() + spare_inodes;

        // As many descriptors as there can be are kept room for; metadata may go where others would
        // have been. (One block more, for the plan does not grow quite evenly.)
        let data = self.space.end();
        let upper = data.saturating_add(self.metadata_at_most(&numbers));
        let kept = Groups::plan(inodes, data, upper, spare_blocks)?.descriptor_blocks() + 1;
        if kept < RESERVED_DESCRIPTORS {
            self.space.release(1 + kept, RESERVED_DESCRIPTORS - kept);
        }
        let kept = kept.min(RESERVED_DESCRIPTORS);

        let table = self.write_nodes(&numbers)?;
        let groups = Groups::plan(inodes, data, self.space.end(), spare_blocks)?;
        let descriptors = groups.descriptor_blocks();
        if descriptors > kept {
            return Err(Ext4Error::TooLarge { limit: u64::from(self.space.end()) * BLOCK_BYTES });
        }
        if descriptors < kept {
            self.space.release(1 + descriptors, kept - descriptors);
        }
        self.write_groups(&numbers, &groups, &table)?;

        for (start, count) in self.space.free_runs().collect::<Vec<_>>() {
            self.file.punch(start, count)?;
        }
        let file = self.file.finish(groups.total)?;
        let allocated = file.metadata().map_err(Ext4Error::write)?.blocks() * 512;
        Ok(Stats {
            blocks: groups.total.into(),
            inodes: numbers.order.len() as u64,
            bytes: u64::from(groups.total) * BLOCK_BYTES,
            allocated,
        })
    }

    /// Blocks that directories, extent trees, symbolic links and attributes take at most.
    fn metadata_at_most(&self, numbers: &Numbers) -> u32 {
        let of = |id: &NodeId| {
            let node = self.tree.node(*id);
            let content = match &node.body {
                Body::File { extents, .. } => extents::tree_blocks(extents.len()),
                // However scattered its blocks, a tree of them is no larger than they are.
                Body::Directory(directory) => {
                    2 * directory::blocks(directory.entries.keys().map(|name| name.len()))
                }
                Body::Symlink(target) => u32::from(target.len() > FAST_SYMLINK),
                Body::Special(_) => 0,
            };
            let xattrs = node.attributes.xattrs.as_ref().is_some_and(|xattrs| xattrs.block.is_some());
            content + u32::from(xattrs)
        };
        numbers.order.iter().map(of).fold(0, u32::saturating_add)
    }

    /// Writes what files have outside of their inodes. Returns the used part of the inode table.
    fn write_nodes(&mut self, numbers: &Numbers) -> Result<Vec<u8>, Ext4Error> {
        let used = usize::try_from(numbers.used()).unwrap_or(usize::MAX);
        let mut table = vec![0; used * inode::SIZE];
        let (slots, _) = table.as_chunks_mut();
        for id in &numbers.order {
            self.write_node(*id, numbers, &mut slots[numbers.of(*id) as usize - 1])?;
        }
        Ok(table)
    }

    fn write_node(
        &mut self,
        id: NodeId,
        numbers: &Numbers,
        slot: &mut [u8; inode::SIZE],
    ) -> Result<(), Ext4Error> {
        let (space, file) = (&mut self.space, &mut self.file);
        let mut blocks = 0_u64;
        let mut store = |bytes: &[u8]| {
            let count = u32::try_from(bytes.len().div_ceil(BLOCK)).unwrap_or(u32::MAX);
            blocks += u64::from(count);
            let block = space.take(count)?;
            file.write(block, bytes)?;
            Ok((block, count))
        };
        let mut one = |bytes: &[u8]| store(bytes).map(|(block, _)| block);

        let node = self.tree.node(id);
        let mut data = 0;
        let (size, links, content) = match &node.body {
            Body::File { size, extents } => {
                data = extents.iter().map(|extent| u64::from(extent.length)).sum();
                (*size, node.links, Content::Extents(extents::encode(extents, &mut one)?))
            }
            Body::Directory(directory) => {
                let bytes = directory::encode(records(&self.tree, numbers, id, directory.parent));
                let (block, count) = store(&bytes)?;
                let root = extents::encode(&extents::contiguous(block, count), |bytes| {
                    store(bytes).map(|(block, _)| block)
                })?;
                (bytes.len() as u64, subdirectories(&self.tree, id), Content::Extents(root))
            }
            Body::Symlink(target) if target.len() <= FAST_SYMLINK => {
                let mut inline = [0; 60];
                inline[..target.len()].copy_from_slice(target);
                (target.len() as u64, node.links, Content::Inline(inline))
            }
            Body::Symlink(target) => {
                let extent = Extent { logical: 0, physical: one(target)?, length: 1 };
                let root = extents::encode(&[extent], &mut one)?;
                (target.len() as u64, node.links, Content::Extents(root))
            }
            Body::Special(special) => (0, node.links, Content::Inline(inode::device(*special))),
        };
        let xattrs = node.attributes.xattrs.as_ref().and_then(|xattrs| xattrs.block.as_deref());
        let xattr_block = xattrs.map(|bytes| store(bytes).map(|(block, _)| block)).transpose()?.unwrap_or(0);
        let inode = Inode {
            kind: node.body.kind(),
            attributes: &node.attributes,
            links: u16::try_from(links).expect("at most 65000"),
            size,
            blocks: data + blocks,
            content,
            xattr_block,
        };
        inode.encode(slot);
        Ok(())
    }

    /// Writes bitmaps, inode tables, descriptors and the superblock.
    fn write_groups(&mut self, numbers: &Numbers, groups: &Groups, table: &[u8]) -> Result<(), Ext4Error> {
        let mut descriptors = vec![Descriptor::default(); groups.count as usize];
        let bitmaps = self.space.append(groups.count * 2)?;
        for (group, descriptor) in (0..).zip(&mut descriptors) {
            descriptor.block_bitmap = bitmaps + group;
            descriptor.inode_bitmap = bitmaps + groups.count + group;
            descriptor.inode_table = self.space.append(groups.table_blocks())?;
        }
        self.write_block_bitmaps(groups, &mut descriptors)?;
        self.write_inode_bitmaps(numbers, groups, &mut descriptors)?;
        self.write_inode_tables(groups, &descriptors, table)?;
        self.file.write(1, &superblock::descriptors(&descriptors))?;
        let free_blocks = descriptors.iter().map(|descriptor| descriptor.free_blocks).sum();
        let free_inodes = descriptors.iter().map(|descriptor| descriptor.free_inodes).sum();
        self.file.write(0, &superblock::encode(&self.options, groups, free_blocks, free_inodes))
    }

    fn write_block_bitmaps(
        &mut self,
        groups: &Groups,
        descriptors: &mut [Descriptor],
    ) -> Result<(), Ext4Error> {
        let mut free: Vec<_> = self.space.free_runs().map(|(start, count)| start..start + count).collect();
        free.push(self.space.end()..groups.total);
        let mut free = free.into_iter().peekable();
        for (group, descriptor) in (0..).zip(descriptors) {
            let range = groups.range(group);
            // What is behind the group's end counts as in use.
            let mut bitmap = vec![0xff; BLOCK];
            while let Some(run) = free.peek()
                && run.start < range.end
            {
                let end = run.end;
                for block in run.start.max(range.start)..end.min(range.end) {
                    let bit = (block - range.start) as usize;
                    bitmap[bit / 8] &= !(1 << (bit % 8));
                    descriptor.free_blocks += 1;
                }
                if end > range.end {
                    break;
                }
                free.next();
            }
            self.file.write(descriptor.block_bitmap, &bitmap)?;
        }
        Ok(())
    }

    fn write_inode_bitmaps(
        &mut self,
        numbers: &Numbers,
        groups: &Groups,
        descriptors: &mut [Descriptor],
    ) -> Result<(), Ext4Error> {
        let in_group = groups.inodes as usize;
        let mut used = usize::try_from(numbers.used()).unwrap_or(usize::MAX);
        for descriptor in &mut *descriptors {
            let here = used.min(in_group);
            used -= here;
            descriptor.free_inodes = groups.inodes - u32::try_from(here).unwrap_or(groups.inodes);
            let mut bitmap = vec![0xff; BLOCK];
            for bit in here..in_group {
                bitmap[bit / 8] &= !(1 << (bit % 8));
            }
            self.file.write(descriptor.inode_bitmap, &bitmap)?;
        }
        for id in &numbers.order {
            if self.tree.directory(*id).is_some() {
                descriptors[(numbers.of(*id) as usize - 1) / in_group].directories += 1;
            }
        }
        Ok(())
    }

    fn write_inode_tables(
        &mut self,
        groups: &Groups,
        descriptors: &[Descriptor],
        table: &[u8],
    ) -> Result<(), Ext4Error> {
        let mut blocks = table.chunks(BLOCK);
        for descriptor in descriptors {
            // Nothing was ever written where the tables are: what is not used stays a hole.
            for (block, bytes) in (0..groups.table_blocks()).zip(&mut blocks) {
                self.file.write(descriptor.inode_table + block, bytes)?;
            }
        }
        Ok(())
    }
}

/// What a directory's blocks say.
fn records<'a>(
    tree: &'a Tree,
    numbers: &'a Numbers,
    id: NodeId,
    parent: NodeId,
) -> impl Iterator<Item = Record<'a>> {
    let dots = [(id, b".".as_slice()), (parent, b"..".as_slice())];
    let dots = dots.map(|(node, name)| Record { inode: numbers.of(node), kind: Kind::Directory, name });
    let entries = tree.directory(id).into_iter().flat_map(|directory| &directory.entries);
    let entries = entries.map(|(name, entry)| Record {
        inode: numbers.of(entry.node),
        kind: tree.node(entry.node).body.kind(),
        name,
    });
    dots.into_iter().chain(entries)
}

/// The link count of a directory: its name, its `.` and the `..` of each directory in it. One
/// where that is more than can be counted.
fn subdirectories(tree: &Tree, id: NodeId) -> u32 {
    let entries = tree.directory(id).into_iter().flat_map(|directory| directory.entries.values());
    let count = entries.filter(|entry| tree.directory(entry.node).is_some()).count();
    u32::try_from(count + 2).ok().filter(|links| *links <= MAX_LINKS).unwrap_or(1)
}
