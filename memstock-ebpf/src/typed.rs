//! Kernel structures whose type the verifier knows, such as the arguments of a tracepoint with BTF: their fields are
//! read by plain loads, without a helper. Where returns are expensive (SRSO), a call of `bpf_probe_read_kernel` takes
//! 35 to 50 ns.

use aya_ebpf::EbpfContext;

/// The address of such a structure. The verifier allows no arithmetic on it but adding constants.
#[derive(Clone, Copy)]
pub struct Typed(*const u8);

impl Typed {
    /// An argument of a tracepoint or function.
    #[inline(always)]
    pub fn argument(ctx: &impl EbpfContext, index: usize) -> Self {
        // SAFETY: the verifier checks that there is such an argument.
        Self(unsafe { *ctx.as_ptr().cast::<*const u8>().add(index) })
    }

    /// The address as a number. A negated pointer is a number to the verifier, and the compiler must not see that
    /// negating it twice changes nothing.
    #[inline(always)]
    pub fn address(self) -> u64 {
        core::hint::black_box((self.0 as u64).wrapping_neg()).wrapping_neg()
    }

    /// The pointer at `offset`.
    #[inline(always)]
    pub fn pointer(self, offset: u32) -> Self {
        Self(self.load(offset))
    }

    /// The word at `offset`.
    #[inline(always)]
    pub fn word(self, offset: u32) -> u64 {
        self.load(offset)
    }

    /// The int at `offset`.
    #[inline(always)]
    pub fn int(self, offset: u32) -> u32 {
        self.load(offset)
    }

    #[inline(always)]
    fn load<T: Copy>(self, offset: u32) -> T {
        // SAFETY: the verifier checks that the structure has a field of this size there. The kernel handles faults of
        // such loads: what cannot be read is 0.
        unsafe { self.0.add(offset as usize).cast::<T>().read_volatile() }
    }
}
