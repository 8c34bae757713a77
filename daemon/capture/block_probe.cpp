// SPDX-License-Identifier: Apache-2.0
#include "capture/block_probe.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <map>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>

#include "capture/block_sysfs.hpp"

// The compiled programs, taken into this file as they are.
asm(".pushsection .rodata\n"
    ".balign 16\n"
    "blkferry_block_probe_begin: .incbin \"" BLKFERRY_BLOCK_PROBE_OBJECT "\"\n"
    "blkferry_block_probe_end:\n"
    ".popsection\n");
extern "C" {
extern const std::byte blkferry_block_probe_begin[] __attribute__((visibility("hidden")));
extern const std::byte blkferry_block_probe_end[] __attribute__((visibility("hidden")));
}

namespace blkferry::capture {

namespace {

constexpr std::uint64_t tags_min = 4096;
constexpr std::uint64_t tags_limit = 1ULL << 20;
constexpr std::size_t said_bytes_max = 4096;
constexpr const char* btf_file = "/sys/kernel/btf/vmlinux";

/// What libbpf said last; its callback takes no argument of ours.
thread_local std::string said;

int hear(libbpf_print_level level, const char* format, va_list args) {
    if (level == LIBBPF_DEBUG)
        return 0;
    std::array<char, 1024> line{};
    // NOLINTNEXTLINE: the format is libbpf's
    const int n = std::vsnprintf(line.data(), line.size(), format, args);
    said += line.data();
    if (said.size() > said_bytes_max)
        said.erase(0, said.size() - said_bytes_max);
    return n;
}

std::string last_words() {
    std::string text = said;
    std::ranges::replace(text, '\n', ' ');
    while (text.ends_with(' '))
        text.pop_back();
    return text.empty() ? text : fmt::format(" (libbpf: {})", text);
}

std::unexpected<Error> refuse(int err, std::string_view what) {
    const Errc code = err == EPERM || err == EACCES ? Errc::denied : Errc::unsupported;
    const std::string advice = code == Errc::denied ? "; CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN, are needed; how the service gets it: blkferry-agent(8), WITHOUT THE MODULE" : "";
    return std::unexpected(Error{code, err, fmt::format("eBPF tracking cannot begin: {}: {}{}{}", what, fail_errno(err, "").error().text,
                                                        advice, last_words())});
}

struct ObjectClose {
    void operator()(bpf_object* o) const noexcept { bpf_object__close(o); }
};
struct LinkDestroy {
    void operator()(bpf_link* l) const noexcept { bpf_link__destroy(l); }
};

std::size_t page_round(std::size_t bytes) noexcept {
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    return (bytes + page - 1) / page * page;
}

}  // namespace

struct BlockProbe::Impl {
    std::unique_ptr<bpf_object, ObjectClose> object;
    std::array<int, BF_PROBE_COPIES> issue{};
    std::array<int, BF_PROBE_COPIES> complete{};
    int disks = -1;
    int dirty = -1;
    int inflight = -1;
    Mapping counts;
    std::vector<std::unique_ptr<bpf_link, LinkDestroy>> links;  // before the object: they end first

    ~Impl() {
        // In reverse: what issues first, so that no request enters the table that nothing takes out again.
        while (!links.empty())
            links.pop_back();
    }

    Result<void> attach(const char* name, int& fd) {
        bpf_program* program = bpf_object__find_program_by_name(object.get(), name);
        if (program == nullptr)
            return fail(Errc::corrupt, fmt::format("the eBPF object has no program {}", name));
        fd = bpf_program__fd(program);
        errno = 0;
        std::unique_ptr<bpf_link, LinkDestroy> link(bpf_program__attach(program));
        if (!link)
            return refuse(errno, fmt::format("program {} cannot be attached", name));
        links.push_back(std::move(link));
        return {};
    }
    Result<int> map(const char* name) const {
        const int fd = bpf_object__find_map_fd_by_name(object.get(), name);
        if (fd < 0)
            return fail(Errc::corrupt, fmt::format("the eBPF object has no map {}", name));
        return fd;
    }
};

BlockProbe::BlockProbe(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
BlockProbe::~BlockProbe() = default;

Result<std::unique_ptr<BlockProbe>> BlockProbe::load() {
    if (::access(btf_file, R_OK) != 0)
        return fail(Errc::unsupported, fmt::format("eBPF tracking cannot begin: the kernel has no {} (CONFIG_DEBUG_INFO_BTF); use the "
                                                   "module", btf_file));
    said.clear();
    libbpf_set_print(hear);
    auto impl = std::make_unique<Impl>();
    bpf_object_open_opts options{};
    options.sz = sizeof(options);
    options.object_name = "blkferry";
    const auto bytes = static_cast<std::size_t>(blkferry_block_probe_end - blkferry_block_probe_begin);
    errno = 0;
    impl->object.reset(bpf_object__open_mem(blkferry_block_probe_begin, bytes, &options));
    if (!impl->object)
        return refuse(errno, "the programs cannot be read");
    const std::uint64_t tags = std::bit_ceil(std::clamp(all_tags(), tags_min, tags_limit));
    bpf_map* inflight = bpf_object__find_map_by_name(impl->object.get(), "inflight");
    if (inflight == nullptr || bpf_map__set_max_entries(inflight, static_cast<std::uint32_t>(tags)) != 0)
        return fail(Errc::corrupt, "the eBPF object has no map inflight");
    if (const int r = bpf_object__load(impl->object.get()); r != 0)
        return refuse(-r, "the kernel refused the programs (5.12 or newer is needed)");
    BLKFERRY_TRY_ASSIGN(impl->disks, impl->map("disks"));
    BLKFERRY_TRY_ASSIGN(impl->dirty, impl->map("dirty"));
    BLKFERRY_TRY_ASSIGN(impl->inflight, impl->map("inflight"));
    BLKFERRY_TRY_ASSIGN(const int counts, impl->map("counts"));
    BLKFERRY_TRY_ASSIGN(impl->counts, Mapping::map(counts, page_round(BF_PROBE_DISKS * sizeof(bf_probe_disk)), PROT_READ | PROT_WRITE, 0,
                                                   "eBPF counters"));
    // Completers first: what enters the table must be taken out again.
    for (std::size_t i = 0; i < BF_PROBE_COPIES; ++i)
        BLKFERRY_TRY(impl->attach(fmt::format("complete_{}", i + 1).c_str(), impl->complete[i]));
    for (std::size_t i = 0; i < BF_PROBE_COPIES; ++i)
        BLKFERRY_TRY(impl->attach(fmt::format("issue_{}", i + 1).c_str(), impl->issue[i]));
    std::unique_ptr<BlockProbe> probe(new BlockProbe(std::move(impl)));
    probe->tags_max_ = tags;
    return probe;
}

Result<ProbeMemory> BlockProbe::add(std::uint64_t dev, std::uint64_t sectors, std::uint32_t block_shift, std::uint64_t tags) {
    if (next_slot_ == BF_PROBE_DISKS)
        return fail_errno(ENOSPC, fmt::format("{} disks were attached since the start; restart the agent", BF_PROBE_DISKS));
    if (tags > tags_max_ - tags_used_)
        return fail(Errc::no_space, fmt::format("the disk can have {} requests at once, there is room for {}; restart the agent", tags,
                                                tags_max_ - tags_used_));
    ProbeMemory m;
    m.slot = next_slot_;
    m.dirty.blocks = ((sectors - 1) >> block_shift) + 1;
    const std::uint64_t fine = fine_words(m.dirty.blocks);
    const std::uint64_t coarse = coarse_words(m.dirty.blocks);
    bpf_map_create_opts options{};
    options.sz = sizeof(options);
    options.map_flags = BPF_F_MMAPABLE | BPF_F_INNER_MAP;
    const Fd map(bpf_map_create(BPF_MAP_TYPE_ARRAY, "bf_dirty", sizeof(std::uint32_t), sizeof(std::uint64_t),
                                static_cast<std::uint32_t>(fine + coarse), &options));
    if (!map)
        return fail_errno(errno, fmt::format("no kernel memory for a dirty map of {} bytes", (fine + coarse) * 8));
    BLKFERRY_TRY_ASSIGN(m.words, Mapping::map(map.get(), page_round((fine + coarse) * 8), PROT_READ | PROT_WRITE, 0, "eBPF dirty map"));
    auto* words = static_cast<std::uint64_t*>(static_cast<void*>(m.words.data()));
    m.dirty.fine = {words, fine};
    m.dirty.coarse = {words + fine, coarse};
    m.disk = static_cast<bf_probe_disk*>(static_cast<void*>(impl_->counts.data())) + m.slot;
    *m.disk = {};
    m.disk->sectors = sectors;
    m.disk->fine_words = fine;
    m.disk->block_shift = block_shift;
    const int inner = map.get();
    if (bpf_map_update_elem(impl_->dirty, &m.slot, &inner, BPF_ANY) != 0 || bpf_map_update_elem(impl_->disks, &dev, &m.slot, BPF_ANY) != 0)
        return fail_errno(errno, "the kernel refused a dirty map");
    // Tracked from here on; all of it is dirty whatever was written before.
    mark_blocks(m.dirty, 0, m.dirty.blocks);
    ++next_slot_;
    tags_used_ += tags;
    return m;
}

void BlockProbe::remove(std::uint64_t dev, std::uint64_t tags) noexcept {
    std::uint32_t slot = 0;
    if (bpf_map_lookup_elem(impl_->disks, &dev, &slot) != 0)
        return;
    (void)bpf_map_delete_elem(impl_->disks, &dev);
    (void)bpf_map_delete_elem(impl_->dirty, &slot);
    tags_used_ -= std::min(tags, tags_used_);
}

/// Takes an entry out whose end was not seen; what it marked is for the next round.
void BlockProbe::forget(const ProbeMemory& memory, std::uint64_t key, const bf_probe_request& r) noexcept {
    const std::uint64_t events = __atomic_fetch_add(&memory.disk->events, 1, __ATOMIC_SEQ_CST) + 1;
    bf_probe_request now{};
    if (bpf_map_lookup_elem(impl_->inflight, &key, &now) != 0 || std::memcmp(&now, &r, sizeof(r)) != 0 ||
        bpf_map_delete_elem(impl_->inflight, &key) != 0)
        return;
    __atomic_fetch_add(&memory.disk->stale, 1, __ATOMIC_SEQ_CST);
    if (r.segments != 0)
        __atomic_fetch_add(&memory.disk->passthrough, 1, __ATOMIC_SEQ_CST);
    // Something happened meanwhile: it may have been this request, in use again. Then it stays.
    if (__atomic_load_n(&memory.disk->events, __ATOMIC_SEQ_CST) != events && bpf_map_update_elem(impl_->inflight, &key, &r, BPF_NOEXIST) == 0)
        return;
    __atomic_fetch_sub(&memory.disk->inflight, 1, __ATOMIC_SEQ_CST);
}

std::uint64_t BlockProbe::sweep(const ProbeMemory& memory, bool idle) {
    std::map<std::uint64_t, Seen> now;
    std::uint64_t found = 0;
    std::uint64_t key = 0;
    const std::uint64_t* at = nullptr;  // the first
    // Entries come and go meanwhile, and the walk may begin again: what was there all the time is met, and it ends.
    for (std::uint64_t steps = 0; steps < 4 * tags_max_ && bpf_map_get_next_key(impl_->inflight, at, &key) == 0; ++steps) {
        at = &key;
        bf_probe_request r{};
        if (bpf_map_lookup_elem(impl_->inflight, &key, &r) != 0 || r.slot != memory.slot)
            continue;
        ++found;
        const std::uint64_t past = std::min(memory.disk->sectors, r.sector + r.bytes / 512);
        if (r.sector < past)
            mark_blocks(memory.dirty, r.sector >> memory.disk->block_shift, ((past - 1) >> memory.disk->block_shift) + 1);
        const auto old = seen_.find(key);
        const bool same = old != seen_.end() && old->second.slot == r.slot && old->second.sector == r.sector;
        const Seen s{r.slot, r.sector, same ? old->second.sweeps + (idle ? 1U : 0U) : 0U};
        if (s.sweeps < sweeps_max)
            now.insert_or_assign(key, s);
        else
            forget(memory, key, r);
    }
    std::erase_if(seen_, [&](const auto& e) { return e.second.slot == memory.slot; });
    seen_.merge(now);
    return found;
}

BlockProbe::Skipped BlockProbe::skipped() const noexcept {
    const auto read = [](int fd) -> std::uint64_t {
        bpf_prog_info info{};
        std::uint32_t bytes = sizeof(info);
        return bpf_obj_get_info_by_fd(fd, &info, &bytes) == 0 ? info.recursion_misses : 0;
    };
    Skipped s;
    for (std::size_t i = 0; i < BF_PROBE_COPIES; ++i) {
        s.issue[i] = read(impl_->issue[i]);
        s.complete[i] = read(impl_->complete[i]);
    }
    return s;
}

bool BlockProbe::may_have_lost(const Skipped& before, const Skipped& now) noexcept {
    return std::ranges::equal(before.issue, now.issue, std::ranges::less());
}

}  // namespace blkferry::capture
