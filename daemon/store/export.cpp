// SPDX-License-Identifier: Apache-2.0
#include "store/export.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <linux/fs.h>
#include <list>
#include <map>
#include <mutex>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>
#include <openssl/evp.h>

#include "base/fd.hpp"
#include "codec/zero.hpp"
#include "store/file.hpp"

namespace blkferry::store {

namespace {
constexpr std::size_t open_chunks_max = 64;
constexpr std::size_t piece_bytes = 1U << 20;

/// A new file in `folder`, which belongs to the folder's owner: root reads stores too, and the server has to open it later.
Result<Fd> create_owned(const std::filesystem::path& folder, const std::filesystem::path& path) {
    BLKFERRY_TRY_ASSIGN(const Fd dir, open_file(folder, O_RDONLY | O_DIRECTORY));
    BLKFERRY_TRY_ASSIGN(Fd fd, open_file(path, O_RDONLY | O_CREAT | O_EXCL | O_NOFOLLOW));
    struct stat owner {};
    if (::fstat(dir.get(), &owner) != 0)
        return fail_errno(errno, folder.string());
    if (owner.st_uid != ::geteuid() && ::fchown(fd.get(), owner.st_uid, owner.st_gid) != 0)
        return fail_errno(errno, fmt::format("cannot give {} to the owner of {}", path.string(), folder.string()));
    return fd;
}

/// Shared lock on <point>.lock: PointStore::remove() takes it exclusively.
Result<Fd> hold_point(const std::filesystem::path& points, std::string_view name) {
    const auto path = points / (std::string(name) + ".lock");
    // Two turns: it may be created by another reader, or go with its point, between the two calls.
    for (int turn = 0; turn < 2; ++turn) {
        Result<Fd> fd = open_file(path, O_RDONLY | O_NOFOLLOW);
        if (!fd && fd.error().sys_errno == ENOENT)
            fd = create_owned(points, path);
        if (!fd && (fd.error().sys_errno == EEXIST || fd.error().sys_errno == ENOENT) && turn == 0)
            continue;
        if (!fd)
            return fd;
        if (::flock(fd->get(), LOCK_SH | LOCK_NB) != 0)
            return fail(Errc::busy, fmt::format("recovery point {} is being removed", name));
        return fd;
    }
    return fail(Errc::busy, fmt::format("recovery point {} is being removed", name));
}
}  // namespace

struct PointReader::Impl {
    std::unique_ptr<FileSystem> own;
    FileSystem* files = nullptr;
    std::string point;
    Fd hold;
    Manifest manifest;
    const ManifestDisk* disk = nullptr;
    std::filesystem::path dir;
    std::map<std::uint32_t, Generation> chunks;  ///< the version that the point sees; fixed for its life

    mutable std::mutex lock;
    mutable std::list<std::pair<std::uint32_t, std::shared_ptr<File>>> recent;

    [[nodiscard]] Result<void> index();
    [[nodiscard]] Result<std::shared_ptr<File>> chunk(std::uint32_t number, Generation generation) const;
};

Result<void> PointReader::Impl::index() {
    BLKFERRY_TRY_ASSIGN(const std::vector<std::string> names, files->list(dir));
    for (const std::string& name : names) {
        const auto parsed = parse_chunk_name(name);
        if (!parsed)
            return fail(Errc::corrupt, fmt::format("{} is no chunk file", (dir / name).string()));
        if (parsed->fresh || parsed->generation > disk->generation)
            continue;
        Generation& best = chunks[parsed->chunk];
        best = std::max(best, parsed->generation);
    }
    return {};
}

Result<std::shared_ptr<File>> PointReader::Impl::chunk(std::uint32_t number, Generation generation) const {
    const std::scoped_lock guard(lock);
    for (auto it = recent.begin(); it != recent.end(); ++it)
        if (it->first == number) {
            recent.splice(recent.begin(), recent, it);
            return recent.front().second;
        }
    const auto path = dir / to_string(ChunkName{number, generation, false});
    BLKFERRY_TRY_ASSIGN(std::shared_ptr<File> file, files->open(path, OpenMode::read));
    recent.emplace_front(number, file);
    if (recent.size() > open_chunks_max)
        recent.pop_back();
    return file;
}

PointReader::PointReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PointReader::~PointReader() = default;

Result<std::unique_ptr<PointReader>> PointReader::open(const std::filesystem::path& source_dir, std::string_view point,
                                                       std::uint16_t slot, const Signer* verifier) {
    if (!proto::valid_name(point))
        return fail(Errc::invalid, fmt::format("\"{}\" is no name for a recovery point", point));
    const auto points = source_dir / "points";
    if (!std::filesystem::exists(points / (std::string(point) + ".json")))
        return fail(Errc::not_found, fmt::format("there is no recovery point {} in {}", point, points.string()));
    auto impl = std::make_unique<Impl>();
    impl->own = make_posix_file_system();
    impl->files = impl->own.get();
    impl->point = point;
    BLKFERRY_TRY_ASSIGN(impl->hold, hold_point(points, point));
    return load(std::move(impl), source_dir, slot, verifier);
}

Result<std::unique_ptr<PointReader>> PointReader::open_in(FileSystem& files, const std::filesystem::path& source_dir,
                                                          std::string_view point, std::uint16_t slot,
                                                          const Signer* verifier) {
    auto impl = std::make_unique<Impl>();
    impl->files = &files;
    impl->point = point;
    return load(std::move(impl), source_dir, slot, verifier);
}

Result<std::unique_ptr<PointReader>> PointReader::load(std::unique_ptr<Impl> impl, const std::filesystem::path& source_dir,
                                                       std::uint16_t slot, const Signer* verifier) {
    const auto path = source_dir / "points" / (impl->point + ".json");
    BLKFERRY_TRY_ASSIGN(const std::string text, impl->files->read_text(path, manifest_bytes_max));
    auto decoded = decode_manifest(text, verifier);
    if (!decoded)
        return std::unexpected(std::move(decoded).error().with(path.string()));
    if (decoded->manifest.name != impl->point)
        return fail(Errc::corrupt, fmt::format("{} holds the manifest of point {}", path.string(), decoded->manifest.name));
    impl->manifest = std::move(decoded->manifest);
    impl->disk = impl->manifest.disk(slot);
    if (impl->disk == nullptr)
        return fail(Errc::not_found, fmt::format("recovery point {} has no disk in slot {}", impl->point, slot));
    impl->dir = source_dir / "disks" / fmt::format("{:03}", slot);
    BLKFERRY_TRY(impl->index());
    return std::unique_ptr<PointReader>(new PointReader(std::move(impl)));
}

const Manifest& PointReader::manifest() const noexcept {
    return impl_->manifest;
}

const ManifestDisk& PointReader::disk() const noexcept {
    return *impl_->disk;
}

std::uint64_t PointReader::bytes() const noexcept {
    return impl_->disk->sectors * sector_bytes;
}

Result<void> PointReader::read(std::uint64_t offset, std::span<std::byte> out) const {
    if (offset > bytes() || out.size() > bytes() - offset)
        return fail(Errc::invalid, fmt::format("recovery point {}: {} bytes at {} reach beyond its end at {}", impl_->point,
                                               out.size(), offset, bytes()));
    const std::uint64_t chunk_bytes = impl_->disk->chunk_bytes;
    while (!out.empty()) {
        const std::uint64_t inside = offset % chunk_bytes;
        const auto part = static_cast<std::size_t>(std::min<std::uint64_t>(out.size(), chunk_bytes - inside));
        const auto it = impl_->chunks.find(static_cast<std::uint32_t>(offset / chunk_bytes));
        std::size_t n = 0;
        if (it != impl_->chunks.end()) {
            BLKFERRY_TRY_ASSIGN(const std::shared_ptr<File> file, impl_->chunk(it->first, it->second));
            BLKFERRY_TRY_ASSIGN(n, file->read(out.first(part), inside));
        }
        std::memset(out.data() + n, 0, part - n);
        out = out.subspan(part);
        offset += part;
    }
    return {};
}

Result<PointReader::Range> PointReader::range(std::uint64_t offset) const {
    if (offset >= bytes())
        return fail(Errc::invalid, fmt::format("recovery point {} ends at {}", impl_->point, bytes()));
    const std::uint64_t chunk_bytes = impl_->disk->chunk_bytes;
    const auto number = static_cast<std::uint32_t>(offset / chunk_bytes);
    const auto it = impl_->chunks.lower_bound(number);
    if (it == impl_->chunks.end())
        return Range{bytes() - offset, true};
    if (it->first != number)
        return Range{std::min(it->first * chunk_bytes, bytes()) - offset, true};
    const std::uint64_t inside = offset % chunk_bytes;
    const std::uint64_t end = std::min(chunk_bytes, bytes() - number * chunk_bytes);
    BLKFERRY_TRY_ASSIGN(const std::shared_ptr<File> file, impl_->chunk(it->first, it->second));
    BLKFERRY_TRY_ASSIGN(const std::optional<std::uint64_t> data, file->next_data(inside));
    if (!data || *data >= end)
        return Range{end - inside, true};
    if (*data > inside)
        return Range{*data - inside, true};
    BLKFERRY_TRY_ASSIGN(const std::uint64_t hole, file->next_hole(inside));
    return Range{std::min(std::max(hole, inside + 1), end) - inside, false};
}

namespace {

struct Target {
    Fd fd;
    std::string name;
    bool device = false;

    [[nodiscard]] Result<void> zero(std::uint64_t offset, std::uint64_t bytes) const {
        if (!device)
            return {};
        std::uint64_t range[2] = {offset, bytes};
        if (::ioctl(fd.get(), BLKZEROOUT, range) != 0)
            return fail_errno(errno, fmt::format("cannot zero {} at byte {}", name, offset));
        return {};
    }
};

Result<Target> open_target(const std::filesystem::path& path, std::uint64_t bytes) {
    Target t;
    t.name = path.string();
    struct stat st {};
    t.device = ::stat(path.c_str(), &st) == 0 && S_ISBLK(st.st_mode);
    BLKFERRY_TRY_ASSIGN(t.fd, open_file(path, t.device ? O_RDWR | O_EXCL : O_RDWR | O_CREAT | O_EXCL));
    if (!t.device) {
        if (::ftruncate(t.fd.get(), static_cast<off_t>(bytes)) != 0)
            return fail_errno(errno, fmt::format("cannot size {}", t.name));
        return t;
    }
    std::uint64_t has = 0;
    if (::ioctl(t.fd.get(), BLKGETSIZE64, &has) != 0)
        return fail_errno(errno, fmt::format("cannot get the size of {}", t.name));
    if (has < bytes)
        return fail(Errc::no_space, fmt::format("{} has {} bytes, the image has {}", t.name, has, bytes));
    return t;
}

/// Goes over the image once; `target` may be null.
Result<ExportResult> walk(const PointReader& reader, const Target* target,
                          const std::function<bool(std::uint64_t)>& progress) {
    static constexpr std::size_t zero_bytes = 64U << 10;
    const std::vector<std::byte> zeroes(zero_bytes);
    std::vector<std::byte> buffer(piece_bytes);
    Sha256Stream digest;
    ExportResult result;
    while (result.bytes < reader.bytes()) {
        BLKFERRY_TRY_ASSIGN(const PointReader::Range range, reader.range(result.bytes));
        const std::uint64_t step = std::min<std::uint64_t>(range.bytes, range.zero ? 64 * piece_bytes : piece_bytes);
        const auto piece = std::span(buffer).first(range.zero ? 0 : static_cast<std::size_t>(step));
        if (!range.zero)
            BLKFERRY_TRY(reader.read(result.bytes, piece));
        if (range.zero || is_zero(piece)) {
            if (target != nullptr)
                BLKFERRY_TRY(target->zero(result.bytes, step));
            for (std::uint64_t left = step; left > 0; left -= std::min<std::uint64_t>(left, zero_bytes))
                digest.add(std::span(zeroes).first(static_cast<std::size_t>(std::min<std::uint64_t>(left, zero_bytes))));
        } else {
            if (target != nullptr)
                BLKFERRY_TRY(write_full_at(target->fd.get(), piece, result.bytes, target->name));
            digest.add(piece);
            result.data_bytes += step;
        }
        result.bytes += step;
        if (progress && !progress(result.bytes))
            return fail(Errc::closed, "stopped");
    }
    result.sha256 = digest.value();
    return result;
}

}  // namespace

Result<ExportResult> export_image(const PointReader& reader, const std::filesystem::path& target,
                                  const std::function<bool(std::uint64_t)>& progress) {
    BLKFERRY_TRY_ASSIGN(const Target opened, open_target(target, reader.bytes()));
    BLKFERRY_TRY_ASSIGN(const ExportResult result, walk(reader, &opened, progress));
    if (::fsync(opened.fd.get()) != 0)
        return fail_errno(errno, fmt::format("cannot sync {}", opened.name));
    return result;
}

Result<ExportResult> digest_image(const PointReader& reader, const std::function<bool(std::uint64_t)>& progress) {
    return walk(reader, nullptr, progress);
}

}  // namespace blkferry::store
