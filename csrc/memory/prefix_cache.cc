// Implementation of memory/prefix_cache.h; Save and Load are in prefix_snapshot.cc.
#include "memory/prefix_cache.h"

#include <unistd.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "common/check.h"
#include "memory/prefix_hash.h"

namespace dgrt {
namespace {

std::vector<bool> WhichAreWindows(std::span<const KvLayerShape> shapes) {
  std::vector<bool> out;
  for (const KvLayerShape& shape : shapes) out.push_back(shape.sliding_window > 0);
  return out;
}

bool IsUnused(const std::shared_ptr<const KvBlock>& block) { return block == nullptr || block.use_count() == 1; }

}  // namespace

PrefixCache::PrefixCache(std::span<const KvLayerShape> shapes, int64_t chunk_tokens, int64_t limit_bytes,
                         std::string key, MemoryBudget* budget)
    : is_window_(WhichAreWindows(shapes)),
      layout_(shapes, chunk_tokens),
      limit_bytes_(limit_bytes),
      key_(std::move(key)),
      budget_(budget),
      store_(budget) {
  const int64_t page_bytes = sysconf(_SC_PAGESIZE), chunk_bytes = layout_.full_bytes + layout_.window_bytes;
  for (size_t i = 0; i < layout_.places.size(); ++i) {
    if (layout_.places[i].bytes % page_bytes == 0) continue;
    throw Unsupported(Message("prefix cache: ", chunk_tokens, " rows of layer ", i, " are ", layout_.places[i].bytes,
                              " bytes: expected a multiple of the page size of ", page_bytes));
  }
  if (limit_bytes < chunk_bytes) {
    throw InvalidArgument(Message("prefix_cache_bytes: expected 0, or at least the ", chunk_bytes, " bytes of ",
                                  chunk_tokens, " tokens, found ", limit_bytes));
  }
  stats_.limit_bytes = limit_bytes;
  budget_->SetReclaimer([this](int64_t bytes) { return EvictUnused(bytes); });
}

PrefixCache::~PrefixCache() { budget_->SetReclaimer(nullptr); }

PrefixMatch PrefixCache::Find(std::span<const int32_t> prompt, int64_t max_tokens) {
  const std::lock_guard lock(mutex_);
  ++stats_.lookups;
  stats_.prompt_tokens += static_cast<int64_t>(prompt.size());
  const auto whole = std::min(prompt.size(), static_cast<size_t>(std::max<int64_t>(0, max_tokens)));
  std::vector<Node*> path = Path(prompt.first(whole));
  const int64_t num_chunks = ResumeChunks(path);
  if (num_chunks == 0) return {};
  path.resize(static_cast<size_t>(num_chunks));
  Touch(path);
  PrefixMatch match;
  match.num_tokens = num_chunks * layout_.chunk_tokens;
  for (const Node* node : path) {
    match.chunks.push_back(node->parts);
    if (node->depth <= layout_.FirstWindowChunk(num_chunks)) match.chunks.back().window.reset();  // nobody sees it
  }
  ++stats_.hits;
  stats_.hit_tokens += match.num_tokens;
  return match;
}

std::optional<KvChunk> PrefixCache::Insert(std::span<const int32_t> tokens, std::span<const KvLayerView> rows) {
  const auto chunk = static_cast<size_t>(layout_.chunk_tokens);
  DGRT_CHECK(!tokens.empty() && tokens.size() % chunk == 0 && rows.size() == is_window_.size());
  const auto begin = static_cast<int64_t>(tokens.size() - chunk);
  const std::lock_guard lock(mutex_);
  std::vector<Node*> path = Path(tokens);
  const size_t num_chunks = tokens.size() / chunk;
  if (path.size() + 1 < num_chunks) return std::nullopt;  // the chunk before it has been evicted
  Node* node = path.size() == num_chunks ? path.back() : nullptr;
  KvChunk parts = node != nullptr ? node->parts : KvChunk{};
  const int64_t needed = layout_.full_bytes + layout_.window_bytes - (node != nullptr ? BytesOf(parts) : 0);
  const Kept kept = KeptFor(path);
  if (needed > 0 && MakeRoom(needed, kept)) {
    if (parts.full == nullptr) parts.full = CopyRows(rows, begin, false, kept);
    if (parts.full != nullptr && parts.window == nullptr && layout_.window_bytes > 0) {
      parts.window = CopyRows(rows, begin, true, kept);
    }
  }
  const bool whole = parts.full != nullptr && (parts.window != nullptr || layout_.window_bytes == 0);
  if (node == nullptr) {
    if (!whole) return std::nullopt;
    Node* parent = path.empty() ? nullptr : path.back();
    const uint64_t hash = PrefixHash(parent != nullptr ? parent->hash : 0, tokens.last(chunk));
    node = AddNode(parent, hash, tokens.last(chunk), parts);
    path.push_back(node);
  } else if (needed > 0 && whole) {
    node->parts = parts;
    stats_.bytes += needed;
  }
  Touch(path);
  return node->parts;
}

int64_t PrefixCache::EvictUnused(int64_t bytes) {
  const std::lock_guard lock(mutex_);
  int64_t freed = 0;
  while (freed < bytes) {
    const int64_t more = EvictOneUnused({});
    if (more == 0) break;
    freed += more;
  }
  return freed;
}

void PrefixCache::Clear() {
  const std::lock_guard lock(mutex_);
  nodes_.clear();
  stats_.num_chunks = stats_.bytes = 0;
}

PrefixStats PrefixCache::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

// The nodes of these tokens from the start on, as far as there are any.
std::vector<PrefixCache::Node*> PrefixCache::Path(std::span<const int32_t> tokens) const {
  const auto chunk = static_cast<size_t>(layout_.chunk_tokens);
  std::vector<Node*> path;
  uint64_t hash = 0;
  for (; tokens.size() >= chunk; tokens = tokens.subspan(chunk)) {
    hash = PrefixHash(hash, tokens.first(chunk));
    Node* node = Child(path.empty() ? nullptr : path.back(), hash, tokens.first(chunk));
    if (node == nullptr) break;
    path.push_back(node);
  }
  return path;
}

PrefixCache::Node* PrefixCache::Child(const Node* parent, uint64_t hash, std::span<const int32_t> tokens) const {
  const auto [begin, end] = nodes_.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    Node& node = *it->second;
    if (node.parent == parent && std::equal(tokens.begin(), tokens.end(), node.tokens.begin())) return &node;
  }
  return nullptr;
}

// Chunks up to the last border of the path that is a resume point.
int64_t PrefixCache::ResumeChunks(std::span<Node* const> path) const {
  const auto can_resume = [&](int64_t num_chunks) {
    for (int64_t c = layout_.FirstWindowChunk(num_chunks); c < num_chunks; ++c) {
      if (layout_.window_bytes > 0 && path[static_cast<size_t>(c)]->parts.window == nullptr) return false;
    }
    return true;
  };
  auto num_chunks = static_cast<int64_t>(path.size());
  while (num_chunks > 0 && !can_resume(num_chunks)) --num_chunks;
  return num_chunks;
}

// The resume point at the end of the path was used.
void PrefixCache::Touch(std::span<Node* const> path) {
  ++clock_;
  const int64_t first_window = layout_.FirstWindowChunk(static_cast<int64_t>(path.size()));
  for (Node* node : path) {
    node->full_used = clock_;
    if (node->depth > first_window) node->window_used = clock_;
  }
}

int64_t PrefixCache::BytesOf(const KvChunk& parts) const {
  return layout_.full_bytes + (parts.window != nullptr ? layout_.window_bytes : 0);
}

PrefixCache::Kept PrefixCache::KeptFor(std::span<Node* const> path) const {
  Kept kept;
  const int64_t first_window = layout_.FirstWindowChunk(static_cast<int64_t>(path.size()));
  for (const Node* node : path) kept[node] = node->depth > first_window;
  return kept;
}

// Evicts until the limit leaves that many bytes. False, and nothing evicted, if it cannot.
bool PrefixCache::MakeRoom(int64_t bytes, const Kept& kept) {
  int64_t kept_bytes = 0;
  for (const auto& [node, with_window] : kept) {
    kept_bytes += with_window ? BytesOf(node->parts) : layout_.full_bytes;
  }
  if (kept_bytes + bytes > limit_bytes_) return false;
  while (stats_.bytes + bytes > limit_bytes_) {
    Evict(OldestPart([&](const Node& node, bool is_window_only) {
      const auto found = kept.find(&node);
      return found == kept.end() || (is_window_only && !found->second);
    }));
  }
  return true;
}

// Of parts last used together the deepest goes first, and of a leaf the whole: without its window part it is no resume
// point.
template <typename May>
PrefixCache::Victim PrefixCache::OldestPart(May may) const {
  Victim oldest;
  std::pair<uint64_t, int64_t> least(std::numeric_limits<uint64_t>::max(), 0);  // last use, depth below the start
  for (const auto& [hash, node] : nodes_) {
    const std::pair whole(node->full_used, -node->depth), window(node->window_used, -node->depth);
    if (node->num_children == 0 && whole < least && may(*node, false)) {
      oldest = {node.get(), false};
      least = whole;
    }
    if (node->parts.window != nullptr && window < least && may(*node, true)) {
      oldest = {node.get(), true};
      least = window;
    }
  }
  return oldest;
}

// Returns the bytes that the cache no longer holds.
int64_t PrefixCache::Evict(const Victim& victim) {
  DGRT_CHECK(victim.node != nullptr);
  Node& node = *victim.node;
  if (victim.is_window_only) {
    node.parts.window.reset();
    ++stats_.evicted_windows;
    stats_.bytes -= layout_.window_bytes;
    return layout_.window_bytes;
  }
  const int64_t bytes = BytesOf(node.parts);
  stats_.bytes -= bytes;
  ++stats_.evicted_chunks;
  --stats_.num_chunks;
  if (node.parent != nullptr) --node.parent->num_children;
  const auto [begin, end] = nodes_.equal_range(node.hash);
  nodes_.erase(std::find_if(begin, end, [&](const auto& entry) { return entry.second.get() == &node; }));
  return bytes;
}

// One that frees memory: nobody else holds it. 0: there is none. (A block that only the cache holds stays so while the
// lock is held: copies are made from the cache.)
int64_t PrefixCache::EvictOneUnused(const Kept& kept) {
  const Victim victim = OldestPart([&](const Node& node, bool is_window_only) {
    if (kept.contains(&node) || !IsUnused(node.parts.window)) return false;
    return is_window_only || IsUnused(node.parts.full);
  });
  return victim.node != nullptr ? Evict(victim) : 0;
}

// A block with one chunk's rows of all full or all sliding layers. Null where memory does not allow it.
std::shared_ptr<KvBlock> PrefixCache::CopyRows(std::span<const KvLayerView> rows, int64_t begin, bool of_windows,
                                               const Kept& kept) {
  const int64_t bytes = of_windows ? layout_.window_bytes : layout_.full_bytes;
  std::shared_ptr<KvBlock> block = store_.NewBlock(bytes);
  while (block == nullptr && EvictOneUnused(kept) > 0) block = store_.NewBlock(bytes);
  if (block == nullptr) return nullptr;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (is_window_[i] != of_windows) continue;
    const KvChunkLayout::Place& place = layout_.places[i];
    const auto count = static_cast<size_t>(layout_.chunk_tokens * rows[i].width);
    const auto bytes_of = [&](const float* base) {
      return std::as_bytes(std::span(base + begin * rows[i].width, count));
    };
    if (!block->Write(place.offset, bytes_of(rows[i].k))) return nullptr;
    if (!block->Write(place.offset + place.bytes, bytes_of(rows[i].v))) return nullptr;
  }
  return block;
}

PrefixCache::Node* PrefixCache::AddNode(Node* parent, uint64_t hash, std::span<const int32_t> tokens, KvChunk parts) {
  auto node = std::make_unique<Node>();
  node->parent = parent;
  node->hash = hash;
  node->depth = parent != nullptr ? parent->depth + 1 : 1;
  node->tokens.assign(tokens.begin(), tokens.end());
  node->parts = std::move(parts);
  Node* added = nodes_.emplace(hash, std::move(node))->second.get();
  if (parent != nullptr) ++parent->num_children;
  ++stats_.stored_chunks;
  ++stats_.num_chunks;
  stats_.bytes += BytesOf(added->parts);
  return added;
}

std::string PrefixCache::BrokenInvariant() const {
  const std::lock_guard lock(mutex_);
  int64_t bytes = 0;
  std::unordered_map<const Node*, int64_t> num_children;
  for (const auto& [hash, node] : nodes_) {
    bytes += BytesOf(node->parts);
    ++num_children[node->parent];
    if (node->parts.full == nullptr) return "a node without rows of the full layers";
    if (node->hash != hash) return "a node under another hash";
  }
  for (const auto& [hash, node] : nodes_) {
    if (node->num_children != num_children[node.get()]) return "a node with another number of children than it counts";
    num_children.erase(node.get());
    if (node->parent == nullptr) continue;
    if (node->depth != node->parent->depth + 1) return "a node at another depth than behind its parent";
    if (node->full_used > node->parent->full_used) return "a node used later than its parent";
    if (node->window_used > node->full_used) return "a window part used without its node";
  }
  num_children.erase(nullptr);
  if (!num_children.empty()) return "a node whose parent is gone";
  if (bytes != stats_.bytes) return Message("counted ", stats_.bytes, " bytes, found ", bytes);
  if (bytes > limit_bytes_) return Message(bytes, " bytes above the limit of ", limit_bytes_);
  if (stats_.num_chunks != static_cast<int64_t>(nodes_.size())) return "counted another number of chunks";
  return "";
}

}  // namespace dgrt
