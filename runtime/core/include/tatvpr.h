/* tatvpr-edge: a frame goes in, a place descriptor comes out.
 *
 * This is the whole public C interface. It is the same on Linux (a shared library) and on a
 * microcontroller (a static library). The library allocates nothing, opens no file, keeps no
 * global state and never exits: the caller owns every byte, and every call answers with a status.
 *
 * Structures that may grow begin with their size: set `.size = sizeof(...)`; fields that an older
 * caller does not know are then taken as zero, which always means the default.
 *
 * Thread safety: a tatvpr_model and a tatvpr_map are read-only once initialised and may be shared;
 * each concurrent call needs an arena of its own.
 */
#ifndef TATVPR_H
#define TATVPR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define TATVPR_API
#else
#define TATVPR_API __attribute__((visibility("default")))
#endif

#define TATVPR_ABI 2u            /* raised on every incompatible change of this file */
#define TATVPR_ARENA_ALIGN 64u   /* arenas, weight blobs and maps begin at such an address */

typedef enum tatvpr_status {
    TATVPR_OK = 0,
    TATVPR_ERR_NULL = 1,          /* a required pointer is null */
    TATVPR_ERR_ABI = 2,           /* the program or a structure is of another ABI */
    TATVPR_ERR_ALIGNMENT = 3,     /* arena, blob or map not at a multiple of TATVPR_ARENA_ALIGN */
    TATVPR_ERR_ARENA = 4,         /* the arena is smaller than tatvpr_arena_bytes(), or options.tables
                                   * than tatvpr_tables_bytes() */
    TATVPR_ERR_K = 5,             /* k is not in (0, 1] */
    TATVPR_ERR_TOKENS = 6,        /* tokens is not in (0, 1] */
    TATVPR_ERR_FRAME = 7,         /* frame without pixels, or a stride shorter than a row */
    TATVPR_ERR_FORMAT = 8,        /* unknown pixel format, or odd size in a subsampled one */
    TATVPR_ERR_FRAME_TOO_LARGE = 9, /* the resize tables of this frame do not fit the arena */
    TATVPR_ERR_BLOB_TRUNCATED = 10, /* the weights are shorter than they say */
    TATVPR_ERR_BLOB_MAGIC = 11,   /* these bytes are no weights of ours */
    TATVPR_ERR_BLOB_VERSION = 12, /* weights of another format */
    TATVPR_ERR_BLOB_CRC = 13,     /* the weights were altered or half written */
    TATVPR_ERR_BLOB_MODEL = 14,   /* weights of another model than the program's */
    TATVPR_ERR_BLOB_LAYOUT = 15,  /* weights packed for another kind of board */
    TATVPR_ERR_KERNELS = 16,      /* the kernels asked for do not exist or cannot run here */
    TATVPR_ERR_MAP_TRUNCATED = 17,
    TATVPR_ERR_MAP_MAGIC = 18,
    TATVPR_ERR_MAP_VERSION = 19,
    TATVPR_ERR_MAP_FEATURE = 20,  /* the map requires a feature that this reader lacks */
    TATVPR_ERR_MAP_HEADER = 21,   /* counts, sizes or offsets that contradict each other */
    TATVPR_ERR_MAP_CRC = 22,
    TATVPR_ERR_MAP_MODEL = 23,    /* a map of another model */
    TATVPR_ERR_MAP_EMPTY = 24,    /* a query over a map without places */
    TATVPR_ERR_NOT_FINITE = 25,   /* the descriptor has a NaN or an infinity: nothing is returned */
    TATVPR_ERR_THREADS = 26,      /* out of range, or more than this build or the system gives (limits
                                   * of memory or of processes) */
    TATVPR_ERR_ARGUMENT = 27,     /* any other argument out of range */
    TATVPR_ERR_MAP_JOURNAL = 28   /* a journal of another base file */
} tatvpr_status;

/* One line of English for a status; never null. */
TATVPR_API const char *tatvpr_status_text(tatvpr_status status);

/* ---- frames ------------------------------------------------------------------------------- */

typedef enum tatvpr_format {
    TATVPR_RGB888 = 1, /* R G B bytes, one plane */
    TATVPR_BGR888 = 2, /* B G R bytes, one plane (OpenCV) */
    TATVPR_GRAY8 = 3,
    TATVPR_RGB565 = 4, /* 16 bits, little endian, red in the top five */
    TATVPR_YUV422 = 5, /* Y0 U Y1 V bytes (YUYV), even width */
    TATVPR_NV12 = 6,   /* plane 0: Y; plane 1: U V at half size; even width and height */
    TATVPR_RGBA = 7,   /* R G B and a byte that is not looked at (RGBx) */
    TATVPR_BGRA = 8,   /* B G R and such a byte (BGRx) */
    TATVPR_UYVY = 9,   /* U Y0 V Y1 bytes, even width */
    TATVPR_I420 = 10,  /* planes Y, U, V, the latter at half size; even width and height */
    TATVPR_NV21 = 11,  /* as NV12, but V U */
    TATVPR_GRAY10 = 12, /* 16-bit words, little endian, values 0..1023 */
    TATVPR_GRAY12 = 13, /* values 0..4095 */
    TATVPR_GRAY16 = 14  /* values 0..65535; the upper byte counts */
} tatvpr_format;

/* Bits of tatvpr_frame.yuv, for formats with chroma alone. */
#define TATVPR_YUV_LIMITED 1u /* Y is 16..235, U and V are 16..240; else all are 0..255 */
#define TATVPR_YUV_BT709 2u   /* the matrix of ITU-R BT.709; else that of BT.601 */

/* A camera frame of any size; it is squashed to the model's square exactly as in training. */
typedef struct tatvpr_frame {
    uint32_t size;      /* sizeof(tatvpr_frame) */
    uint32_t format;    /* tatvpr_format */
    int32_t width;      /* pixels */
    int32_t height;
    const uint8_t *planes[3];
    int32_t strides[3]; /* bytes from one row to the next; may be negative */
    uint32_t reserved;  /* zero; may be padding of an older caller, so nothing looks at it */
    uint32_t yuv;       /* TATVPR_YUV_ bits; 0: BT.601, full range */
} tatvpr_frame;

/* Gray levels of structure below which a frame is black, blank, or of a covered lens. Of 574 frames
 * of a tower's corridors and stairs one has 0.4, the next 5.4; of rendered ones the plainest has 3.8.
 * A covered lens with noise of 16 levels and a glow of 60 has 2.5. */
#define TATVPR_LEAST_STRUCTURE 3.0f

/* Whether a frame shows anything: a model finds a place for black frames too, with as high a score,
 * so that whoever relies on answers asks this first. `*levels` receives the root mean square, over
 * 16 x 16 cells, of brightness less the smooth surface nearest to it. */
TATVPR_API tatvpr_status tatvpr_frame_structure(const tatvpr_frame *frame, float *levels);

/* ---- options ------------------------------------------------------------------------------ */

typedef struct tatvpr_power {
    uint32_t size;
    int32_t millivolt;
    int32_t milliampere;
    uint32_t age_ms; /* how old the reading is */
} tatvpr_power;

/* Reads the board's supply; a status other than TATVPR_OK means "no telemetry". */
typedef tatvpr_status (*tatvpr_read_power)(void *user, tatvpr_power *power);

/* Called at the begin (1) and end (0) of every layer with its name, for profilers. */
typedef void (*tatvpr_trace)(void *user, const char *layer, int begin);

typedef struct tatvpr_options {
    uint32_t size;     /* sizeof(tatvpr_options) */
    float k;           /* fraction of activations kept, in (0, 1] */
    float tokens;      /* fraction of patch tokens kept after the early block, in (0, 1] */
    int32_t threads;   /* 0 or 1: the calling thread alone; the bytes are the same for any number */
    tatvpr_read_power read_power; /* used by tatvpr_governor alone; may be null */
    tatvpr_trace trace;           /* may be null */
    void *user;                   /* handed to both */
    float *tokens_out;            /* may be null: receives the last block's tokens [T, D] */
    size_t tokens_out_floats;     /* its room; too little is TATVPR_ERR_ARGUMENT */
    int32_t *token_count_out;     /* may be null: receives T */
    void *tables;                 /* memory for look-up tables, aligned to TATVPR_ARENA_ALIGN; */
    size_t tables_bytes;          /* needed where tatvpr_tables_bytes() is not 0 */
} tatvpr_options;

/* ---- model -------------------------------------------------------------------------------- */

/* Generated code of one model for one kind of board; see the artifact's model.c. */
typedef struct tatvpr_program tatvpr_program;
struct tatvpr_kernels;
struct tatvpr_segments;
struct tatvpr_costs;

/* A program bound to its weights. Owned by the caller, filled by tatvpr_model_init. */
typedef struct tatvpr_model {
    const tatvpr_program *program;
    const uint8_t *weights;  /* the blob, or its prepared copy */
    const struct tatvpr_segments *segments; /* where tensors lie in that copy; null: as in the blob */
    const struct tatvpr_kernels *kernels;
    const struct tatvpr_costs *costs; /* of these kernels on this CPU; null: not known */
} tatvpr_model;

/* What a caller may ask of a model without running it. */
typedef struct tatvpr_model_info {
    uint32_t size; /* sizeof(tatvpr_model_info) */
    uint32_t abi;
    const char *name;          /* "micro" */
    const uint8_t *model_hash; /* 32 bytes: SHA-256 of the canonical graph and weights */
    int32_t image_size;        /* the square side in pixels */
    int32_t descriptor_size;   /* floats in a descriptor */
    int32_t token_dim;         /* D */
    int32_t max_tokens;        /* T with tokens = 1, the CLS token included */
    size_t arena_bytes;
    size_t weight_bytes;       /* bytes of the blob */
} tatvpr_model_info;

/* The program linked into this library (one model a library). */
TATVPR_API const tatvpr_program *tatvpr_program_get(void);

/* RAM that prepared weights need with these kernels; 0 where the blob is used in place. */
TATVPR_API size_t tatvpr_prepared_bytes(const tatvpr_program *program, const char *kernels);

/* Checks the blob (magic, version, layout, CRC, model) and binds it. `kernels` is null for the
 * fastest that this CPU can run, or a name as listed by tatvpr_kernels_name(). `prepared` may be
 * null where tatvpr_prepared_bytes() is 0. The blob must outlive the model unless it was prepared. */
TATVPR_API tatvpr_status tatvpr_model_init(tatvpr_model *model, const tatvpr_program *program,
                                           const void *blob, size_t blob_bytes,
                                           const char *kernels, void *prepared,
                                           size_t prepared_bytes);

TATVPR_API tatvpr_status tatvpr_model_get_info(const tatvpr_program *program,
                                               tatvpr_model_info *info);

/* Names of the kernel variants in this library, best first; null past the last. */
TATVPR_API const char *tatvpr_kernels_name(int32_t index);
/* 1 when this CPU can run that variant. */
TATVPR_API int32_t tatvpr_kernels_usable(const char *kernels);

/* ---- describe ----------------------------------------------------------------------------- */

typedef struct tatvpr_arena {
    void *base; /* aligned to TATVPR_ARENA_ALIGN */
    size_t bytes;
} tatvpr_arena;

/* Bytes of arena that describe and query need for this model. With `threads` > 1 more; 0 where this
 * build cannot run so many: at most 16 on Linux, 1 on microcontrollers. */
TATVPR_API size_t tatvpr_arena_bytes(const tatvpr_model *model, int32_t threads);

/* Bytes that options.tables needs in each of these calls: the look-up tables of the kernels, which
 * a microcontroller's build keeps in a faster memory than the arena. 0: the arena holds them. */
TATVPR_API size_t tatvpr_tables_bytes(const tatvpr_model *model, int32_t threads);

/* The k from which on, up to 1, every matmul of this model runs dense on this processor: a lower k there
 * saves nothing and costs the choice of channels. 1: less k pays from there on; 0: at no k, or null. Bytes
 * do not depend on it. */
TATVPR_API float tatvpr_k_pays_below(const tatvpr_model *model);

/* Frame to descriptor: `descriptor` receives info.descriptor_size floats of unit length. On any
 * status but TATVPR_OK it is left untouched. */
TATVPR_API tatvpr_status tatvpr_describe(const tatvpr_model *model, tatvpr_arena arena,
                                         const tatvpr_frame *frame, const tatvpr_options *options,
                                         float *descriptor);

/* ---- place map ---------------------------------------------------------------------------- */

/* A validated view of the bytes of a .placemap; it copies nothing. */
typedef struct tatvpr_map {
    uint32_t size;
    uint32_t kind;   /* 1 int8, 2 binary, 4 weighed */
    uint32_t dim;    /* elements of a descriptor that are stored: its first ones */
    uint32_t bands;
    uint64_t places;
    const uint8_t *base;
    size_t bytes;
} tatvpr_map;

typedef struct tatvpr_match {
    uint32_t size;
    uint32_t band;
    uint64_t place;
    float score;      /* in [-1, 1]: cosine (int8), 1 - 2 * hamming / dim (binary), of weighed maps
                       * 1 - 2 * (weights of bits that differ) / (all weights) for the best 16 */
    int32_t accepted; /* 1 yes, 0 no, -1 the map does not say */
    double pose[7];   /* x y z qx qy qz qw; NaN: unknown */
    float margin;     /* of the best match: its score less the best score elsewhere; else NaN */
    float confidence; /* of the best match: how probable it is right, 0..1; else NaN */
} tatvpr_match;

/* Validates the header, the offsets, the checksum and every number. `model` may be null: then
 * neither the model hash nor the size of its descriptors is compared. */
TATVPR_API tatvpr_status tatvpr_map_open(tatvpr_map *map, const void *bytes, size_t size,
                                         const tatvpr_model *model);

/* The tag of a place: `*tag` receives its UTF-8 text inside the map, which no zero ends, and `*bytes`
 * its length; 0 where it has none. */
TATVPR_API tatvpr_status tatvpr_map_tag(const tatvpr_map *map, uint64_t place, const char **tag,
                                        size_t *bytes);

/* The `count` best places for a descriptor, best first, ties to the lower place; the band for a
 * query at (k, tokens) is searched (docs/placemap.md). `matches` has room for `count`; `found`
 * receives how many. `model` may be null: the portable kernels, and sizes are not compared. */
TATVPR_API tatvpr_status tatvpr_map_search(const tatvpr_map *map, const tatvpr_model *model,
                                           const float *descriptor, float k, float tokens,
                                           tatvpr_match *matches, int32_t count, int32_t *found);

/* ---- journal: places that were added to a map since its base file was written --------------- */

/* A validated copy of a .placemap.journal, in the caller's room. Its places are numbered on from
 * those of the map. */
typedef struct tatvpr_journal {
    uint32_t size;
    uint32_t bands;
    uint64_t first;       /* the number of its first place: as many as the map holds */
    uint64_t places;      /* 0 where the map has absorbed them */
    uint64_t torn_bytes;  /* at its end, of an append that never finished: no part of it */
    uint64_t count;       /* of the tables */
    uint64_t tag_bytes;
    const void *tables;
    const void *tag_ends;
} tatvpr_journal;

/* How much room tatvpr_journal_open needs for the journal in `bytes`, which it validates. */
TATVPR_API tatvpr_status tatvpr_journal_bytes(const tatvpr_map *map, const void *bytes, size_t size,
                                              size_t *room_bytes);

/* Copies the places of a journal into `room` (a multiple of TATVPR_ARENA_ALIGN); `bytes` is not
 * needed afterwards. Refuses a journal of another base (TATVPR_ERR_MAP_JOURNAL), one that was
 * altered, and room that is too small (TATVPR_ERR_ARENA). */
TATVPR_API tatvpr_status tatvpr_journal_open(tatvpr_journal *journal, const tatvpr_map *map,
                                             const void *bytes, size_t size, void *room,
                                             size_t room_bytes);

/* As tatvpr_map_tag, for the places of a journal. */
TATVPR_API tatvpr_status tatvpr_journal_tag(const tatvpr_journal *journal, uint64_t place,
                                            const char **tag, size_t *bytes);

/* tatvpr_map_search over a map and its journal; `journal` may be null. */
TATVPR_API tatvpr_status tatvpr_journal_search(const tatvpr_map *map, const tatvpr_journal *journal,
                                               const tatvpr_model *model, const float *descriptor,
                                               float k, float tokens, tatvpr_match *matches,
                                               int32_t count, int32_t *found);

/* ---- places in memory: a map and what was added to it since, or any other table ------------ */

/* A place in time, as a map stores it. */
typedef struct tatvpr_moment {
    int64_t time_us;   /* since 1970; 0: unknown */
    uint32_t order;    /* its number along its drive */
    uint16_t drive;
    uint8_t confirmed; /* how often it was recognised; 255: or more */
    uint8_t known;     /* bit i: number i of its pose is known */
} tatvpr_moment;

typedef enum tatvpr_calibration_kind {
    TATVPR_CALIBRATION_NONE = 0,
    TATVPR_CALIBRATION_SCORE = 1,    /* accepted from the score `threshold` up */
    TATVPR_CALIBRATION_LOGISTIC = 2, /* log-odds w0 + w1 * score + w2 * margin; from `threshold` up */
    TATVPR_CALIBRATION_ROOTED = 3    /* the same, beside sequences whose margin counts by its root */
} tatvpr_calibration_kind;

/* When a match is right; spec/maptypes.py Calibration says what each field means. */
typedef struct tatvpr_calibration {
    uint32_t kind;
    float precision;
    float recall;
    float threshold;
    float weights[3];
    float elsewhere_m;
    uint32_t elsewhere_places;
} tatvpr_calibration;

/* When a place is right that consecutive frames give (tatvpr_track.h): where the log-odds
 * w0 + w1 * evidence + w2 * margin + w3 * still + w4 * still_margin + w5 * steady reach
 * `threshold`. Only beside a logistic calibration, whose distances it shares, or a rooted one: the
 * margin's square root, of its own sign, stands for it there. */
typedef struct tatvpr_sequence {
    uint32_t frames; /* that it was learned with; 0: not calibrated, and all of it is zero */
    float precision;
    float recall;
    float threshold;
    float weights[6];
} tatvpr_sequence;

typedef struct tatvpr_band {
    float k;
    float tokens;
    const float *mean; /* [dim] that binary signs are taken around; null: zero */
    tatvpr_calibration calibration;
} tatvpr_band;

/* Descriptors of one band, place after place. */
typedef struct tatvpr_rows {
    const uint8_t *data; /* int8 [places, dim] or bits [places, dim / 8] */
    const float *norms;  /* int8: [places] */
} tatvpr_rows;

/* Places that lie one after another in memory. */
typedef struct tatvpr_part {
    uint64_t places;
    const tatvpr_rows *rows;      /* [bands] */
    const double *poses;          /* [places, 7] */
    const tatvpr_moment *moments; /* [places] */
} tatvpr_part;

/* All places of a map, part after part; they are numbered through. Nothing of it is checked: the
 * caller answers for its pointers and counts. */
typedef struct tatvpr_places {
    uint32_t size; /* sizeof(tatvpr_places) */
    uint32_t kind; /* 1 int8, 2 binary, 4 weighed */
    uint32_t dim;
    uint32_t geographic; /* 1: x and y of poses are degrees of longitude and latitude */
    uint32_t bands;
    uint32_t parts;
    const tatvpr_band *band; /* [bands] */
    const tatvpr_part *part; /* [parts] */
} tatvpr_places;

/* What is looked for. */
typedef struct tatvpr_search {
    uint32_t size;          /* sizeof(tatvpr_search) */
    float k;
    float tokens;
    uint32_t reserved;      /* zero */
    uint64_t first;         /* only places first .. end - 1 are looked at */
    uint64_t end;           /* 0: to the last */
    const uint8_t *without; /* [places]: those that are not 0 are left out; null: none */
    double near[3];         /* only places within radius_m of x, y (and z, unless it is NaN) ... */
    double radius_m;        /* ... where this is above 0; places of unknown x or y are then out */
    float *scores;          /* [places]: receives every score, -infinity for what is left out; of a
                             * weighed map every place's bits are weighed here */
} tatvpr_search;

/* 1 where this library searches maps of `kind`; libraries from before weighed maps have no such
 * function. */
TATVPR_API int32_t tatvpr_map_kind_known(uint32_t kind);

/* 1 where this library judges by a calibration of `kind`, a tatvpr_calibration_kind; libraries from
 * before TATVPR_CALIBRATION_ROOTED have no such function. */
TATVPR_API int32_t tatvpr_calibration_known(uint32_t kind);

/* As tatvpr_map_search. `model` gives the kernels alone; null: the portable ones. `found` may be 0
 * where places are left out. */
TATVPR_API tatvpr_status tatvpr_places_search(const tatvpr_places *places,
                                              const tatvpr_model *model, const float *descriptor,
                                              const tatvpr_search *asked, tatvpr_match *matches,
                                              int32_t count, int32_t *found);

/* The band of an opened map that serves (k, tokens), as a table for tatvpr_places_search, with the
 * places of its journal, which may be null. It points into itself, the map and the journal: look
 * again instead of copying it. */
typedef struct tatvpr_map_view {
    uint32_t size;       /* sizeof(tatvpr_map_view) */
    uint32_t band_index; /* in the map; in `places` it is the only one, 0 */
    tatvpr_places places;
    tatvpr_band band;
    tatvpr_rows rows;
    tatvpr_rows added;
    tatvpr_part part[2];
    tatvpr_sequence sequence;
} tatvpr_map_view;

TATVPR_API tatvpr_status tatvpr_map_look(const tatvpr_map *map, const tatvpr_journal *journal,
                                         float k, float tokens, tatvpr_map_view *view);

/* Binds a model to kernels alone, as tatvpr_model_init chooses them: enough to search with. */
TATVPR_API tatvpr_status tatvpr_model_searcher(tatvpr_model *model, const tatvpr_program *program,
                                               const char *kernels);

/* describe and search in one call. What is wrong with the map or the room for matches is told before
 * the frame is described: the arena is then as it was. */
TATVPR_API tatvpr_status tatvpr_query(const tatvpr_model *model, tatvpr_arena arena,
                                      const tatvpr_frame *frame, const tatvpr_options *options,
                                      const tatvpr_map *map, tatvpr_match *matches, int32_t count,
                                      int32_t *found);

#ifdef __cplusplus
}
#endif
#endif
