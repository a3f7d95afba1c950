/* One line of English for every status. */
#include "core.h"

const char *tatvpr_status_text(tatvpr_status status) {
    switch (status) {
    case TATVPR_OK: return "ok";
    case TATVPR_ERR_NULL: return "a required pointer is null";
    case TATVPR_ERR_ABI: return "a program or structure of another ABI: rebuild against this library";
    case TATVPR_ERR_ALIGNMENT: return "arena, weights or map do not begin at a multiple of 64 bytes";
    case TATVPR_ERR_ARENA: return "the arena is smaller than tatvpr_arena_bytes() says, or the tables than tatvpr_tables_bytes()";
    case TATVPR_ERR_K: return "k is outside (0, 1]";
    case TATVPR_ERR_TOKENS: return "tokens is outside (0, 1]";
    case TATVPR_ERR_FRAME: return "the frame has no pixels or a stride shorter than a row";
    case TATVPR_ERR_FORMAT: return "unknown pixel format, or an odd size in a subsampled one";
    case TATVPR_ERR_FRAME_TOO_LARGE: return "the frame is too large for the arena: scale it down first";
    case TATVPR_ERR_BLOB_TRUNCATED: return "the weights are shorter than they say: copy them again";
    case TATVPR_ERR_BLOB_MAGIC: return "these bytes are no weights of tatvpr-edge";
    case TATVPR_ERR_BLOB_VERSION: return "weights of another format than this library's: copy both from one artifact";
    case TATVPR_ERR_BLOB_CRC: return "the weights were altered or half written: copy them again";
    case TATVPR_ERR_BLOB_MODEL: return "weights of another model than this library's";
    case TATVPR_ERR_BLOB_LAYOUT: return "weights packed for another kind of board: build again";
    case TATVPR_ERR_KERNELS: return "these kernels do not exist or cannot run on this CPU";
    case TATVPR_ERR_MAP_TRUNCATED: return "the map is shorter than it says: copy it again";
    case TATVPR_ERR_MAP_MAGIC: return "these bytes are no place map";
    case TATVPR_ERR_MAP_VERSION: return "a map of another format: make it again, or update the library";
    case TATVPR_ERR_MAP_FEATURE: return "the map needs a feature that this library lacks: update it";
    case TATVPR_ERR_MAP_HEADER: return "the map's header contradicts itself: make the map again";
    case TATVPR_ERR_MAP_CRC: return "the map was altered or half written: copy it again";
    case TATVPR_ERR_MAP_MODEL: return "a map of another model: make a map with this one";
    case TATVPR_ERR_MAP_EMPTY: return "the map holds no places";
    case TATVPR_ERR_NOT_FINITE: return "the descriptor is not finite: the weights or the model are broken";
    case TATVPR_ERR_THREADS: return "more threads than this build or the system gives: ask for fewer";
    case TATVPR_ERR_ARGUMENT: return "an argument is out of range";
    case TATVPR_ERR_MAP_JOURNAL: return "a journal of another map: bring that map back, or remove the journal";
    }
    return "unknown status";
}
