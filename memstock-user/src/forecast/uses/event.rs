//! What happens to the cache. Successive pages to which the same happens are one event: an hour of a busy service has
//! hundreds of millions.

/// Something that happened to the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The part of the run in which it happened.
    pub part: u16,
    /// To how many pages more, one after the other.
    pub more: u16,
    /// What happened, to the first page.
    pub what: What,
}

const _: () = assert!(size_of::<Event>() == 16);

impl Event {
    /// One for each page: the part of the run, and what happened.
    pub fn pages(self) -> impl Iterator<Item = (u16, What)> {
        (0..=self.more).map(move |n| (self.part, self.what.behind(n)))
    }

    /// Takes what happened next as well, if it is the same and to the page behind.
    pub(super) fn continues_with(&mut self, part: u16, what: What) -> bool {
        let is_next = !matches!(what, What::Taken(_))
            && part == self.part
            && self.more < u16::MAX
            && self.what.behind(self.more + 1) == what;
        self.more += u16::from(is_next);
        is_next
    }
}

/// What can happen to the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The memory beside the cache changes; an index into [`Uses::taken`].
    Taken(u32),
    /// A page enters the cache.
    Enter(Use),
    /// A page becomes dirty.
    Dirty(Use),
    /// A page that has just entered has its first use: the one it was read for.
    First(Use),
    /// A cached page is used again.
    Again(Use),
    /// A page leaves the cache, or is counted in [`Taken`] from now on.
    Leave(u32),
}

/// Use of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// The page; an index into [`Uses::file_of`].
    pub page: u32,
    /// How many pages it stands for.
    pub weight: u32,
}

impl What {
    /// The same of the `n`th page behind it.
    fn behind(self, n: u16) -> Self {
        let at = |used: Use| Use { page: used.page + u32::from(n), ..used };
        match self {
            Self::Taken(_) => self,
            Self::Enter(used) => Self::Enter(at(used)),
            Self::Dirty(used) => Self::Dirty(at(used)),
            Self::First(used) => Self::First(at(used)),
            Self::Again(used) => Self::Again(at(used)),
            Self::Leave(page) => Self::Leave(page + u32::from(n)),
        }
    }
}
