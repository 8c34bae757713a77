// SPDX-License-Identifier: Apache-2.0
#include "store/store.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <fmt/format.h>

#include "proto/batch.hpp"

namespace blkferry::store {

namespace {

constexpr std::string_view id_head = "blkferry-store 1 ";

Result<Uuid> load_id(FileSystem& files, const std::filesystem::path& path, bool make) {
    auto text = files.read_text(path, 256);
    if (!text && text.error().code == Errc::not_found && make) {
        const Uuid id = Uuid::random();
        BLKFERRY_TRY(files.write_text_durable(path, fmt::format("{}{}\n", id_head, id.str())));
        return id;
    }
    if (!text)
        return std::unexpected(std::move(text).error());
    std::string_view rest = *text;
    if (!rest.starts_with(id_head) || !rest.ends_with('\n'))
        return fail(Errc::corrupt, fmt::format("{} does not begin with \"{}\": this is no blkferry store", path.string(), id_head));
    rest.remove_prefix(id_head.size());
    rest.remove_suffix(1);
    return Uuid::parse(rest);
}

Result<Fd> take_lock(const std::filesystem::path& path) {
    BLKFERRY_TRY_ASSIGN(Fd fd, open_file(path, O_RDWR | O_CREAT));
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0)
        return fail(Errc::busy, fmt::format("{} is locked: another blkferry-server uses this store", path.string()));
    return fd;
}

Result<std::vector<std::string>> source_names(const std::filesystem::path& dir) {
    std::vector<std::string> names;
    std::error_code error;
    for (std::filesystem::directory_iterator it(dir / "sources", error), end; !error && it != end; it.increment(error))
        if (it->is_directory(error) && proto::valid_name(it->path().filename().string()))
            names.push_back(it->path().filename().string());
    if (error)
        return fail_errno(error.value(), fmt::format("cannot list {}", (dir / "sources").string()));
    std::ranges::sort(names);
    return names;
}

/// The store's lock is held.
Result<std::size_t> rebuild(const std::filesystem::path& store_dir, FileSystem& files) {
    const auto path = store_dir / "catalogue.sqlite";
    for (const char* suffix : {"", "-wal", "-shm"}) {
        std::filesystem::path old = path;
        old += suffix;
        BLKFERRY_TRY(files.remove(old));
    }
    BLKFERRY_TRY_ASSIGN(const std::unique_ptr<Catalogue> catalogue, Catalogue::open(path));
    BLKFERRY_TRY_ASSIGN(const std::vector<std::string> names, source_names(store_dir));
    std::size_t found = 0;
    for (const std::string& name : names) {
        const auto dir = Store::source_dir(store_dir, name);
        const auto text = files.read_text(dir / "checkpoint.json", checkpoint_bytes_max);
        if (!text)
            continue;  // nothing was applied yet, or open_source() will say what is wrong
        const auto checkpoint = decode_checkpoint(*text);
        if (!checkpoint)
            continue;
        BLKFERRY_TRY(catalogue->put_checkpoint(name, *checkpoint, 0));
        BLKFERRY_TRY_ASSIGN(const std::unique_ptr<PointStore> points, PointStore::open(files, dir / "points", nullptr,
                                                                                      PointStore::Access::look));
        BLKFERRY_TRY(catalogue->put_points(name, points->list()));
        ++found;
    }
    return found;
}

}  // namespace

Store::Store(std::filesystem::path dir, const Clock& clock, StoreOptions options)
    : dir_(std::move(dir)), clock_(clock), options_(std::move(options)), files_(make_posix_file_system()) {}

Store::~Store() = default;

std::filesystem::path Store::source_dir(const std::filesystem::path& store, std::string_view name) {
    return store / "sources" / name;
}

Result<std::unique_ptr<Store>> Store::open(std::filesystem::path dir, const Clock& clock, StoreOptions options) {
    std::unique_ptr<Store> store(new Store(std::filesystem::absolute(dir).lexically_normal(), clock, std::move(options)));
    BLKFERRY_TRY(store->load());
    return store;
}

Result<void> Store::load() {
    BLKFERRY_TRY(files_->make_dir(dir_));
    BLKFERRY_TRY_ASSIGN(lock_, take_lock(dir_ / "lock"));
    BLKFERRY_TRY_ASSIGN(id_, load_id(*files_, dir_ / "store.id", true));
    BLKFERRY_TRY(files_->make_dir(dir_ / "sources"));
    BLKFERRY_TRY(files_->make_dir(dir_ / "keys"));
    BLKFERRY_TRY_ASSIGN(engine_, make_engine(options_.engine, *files_, dir_));
    BLKFERRY_TRY(load_signer());
    const auto path = dir_ / "catalogue.sqlite";
    const bool missing = !std::filesystem::exists(path);
    auto catalogue = Catalogue::open(path);
    if (missing || (!catalogue && catalogue.error().code == Errc::corrupt)) {
        catalogue = fail(Errc::again, "rebuilding");  // closes it
        BLKFERRY_TRY_ASSIGN(const std::size_t found, rebuild(dir_, *files_));
        (void)found;
        catalogue = Catalogue::open(path);
    }
    if (!catalogue)
        return std::unexpected(std::move(catalogue).error());
    catalogue_ = std::move(*catalogue);
    return {};
}

/// The public half stays with the store and names its key: points signed with one key could not be checked with another.
Result<void> Store::load_signer() {
    const auto own = dir_ / "keys" / "manifest.pem";
    const auto public_half = dir_ / "keys" / "manifest.pub.pem";
    const bool known = std::filesystem::exists(public_half);
    if (!options_.manifest_key.empty()) {
        struct stat st {};
        if (::stat(options_.manifest_key.c_str(), &st) == 0 && (st.st_mode & 077) != 0)
            return fail(Errc::denied, fmt::format("{}: private key with mode {:04o}, others than its owner can use it: chmod 600 it",
                                                  options_.manifest_key.string(), st.st_mode & 07777));
        BLKFERRY_TRY_ASSIGN(signer_, Signer::load_private(options_.manifest_key));
    } else if (std::filesystem::exists(own)) {
        BLKFERRY_TRY_ASSIGN(signer_, Signer::load_private(own));
    } else if (known) {
        return fail(Errc::not_found, fmt::format("{} names the key that signs this store's manifests, but {} is not there: set "
                                                 "manifest_key to the file that holds it",
                                                 public_half.string(), own.string()));
    } else {
        BLKFERRY_TRY_ASSIGN(signer_, Signer::generate());
        BLKFERRY_TRY(signer_->save_private(own));
    }
    if (!known)
        return signer_->save_public(public_half);
    BLKFERRY_TRY_ASSIGN(const auto before, Signer::load_public(public_half));
    if (before->key_id() != signer_->key_id())
        return fail(Errc::conflict, fmt::format("{}: key {} is not the one that signs this store's manifests ({}, {}): set manifest_key "
                                                "to that one, or use another store",
                                                (options_.manifest_key.empty() ? own : options_.manifest_key).string(),
                                                signer_->key_id().substr(0, 16), before->key_id().substr(0, 16),
                                                public_half.string()));
    return {};
}

Result<std::vector<std::string>> Store::sources() const {
    return source_names(dir_);
}

Result<std::unique_ptr<SourceStore>> Store::open_source(std::string_view name) {
    return SourceStore::open({*files_, clock_, *engine_, id_, signer_.get(), catalogue_.get()}, source_dir(dir_, name),
                             std::string(name), options_.source);
}

Result<std::size_t> rebuild_catalogue(const std::filesystem::path& store_dir) {
    const auto files = make_posix_file_system();
    BLKFERRY_TRY_ASSIGN(const Fd lock, take_lock(store_dir / "lock"));
    return rebuild(store_dir, *files);
}

}  // namespace blkferry::store
