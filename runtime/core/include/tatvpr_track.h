/* tatvpr-edge: where a moving camera is, from the scores of consecutive frames.
 *
 * A filter over the places of a map in the order that they were driven. Its evidence for a place is
 * the mean score, over about the last `frames` frames, along the best path that ends there. From
 * frame to frame a path stays or goes one place along its drive at a small price, always the same way
 * but where it pays for going the other, or jumps anywhere at a high one: a camera on its way goes on,
 * where a path that is free to go to and fro picks whatever is alike. Where odometry says how far the
 * camera moved, and all positions of a drive are known, it goes that far along the drive in either
 * direction, and every metre off has its price (max-plus filtering with forgetting; no exponentials).
 * Where odometry says how far it turned as well, and all orientations of the drive are known, so has
 * every radian between that and how far the drive turns there: corridors that look alike are told
 * apart by their bends. It is turns that are compared, so that a camera may look elsewhere than the
 * one that made the map, and a compass is not needed. Beside it runs `still`, the mean score without
 * motion: a path that is right moves with the camera and gains on it, which a wrong one rarely does.
 * Evidence, still, the margin of each over what lies elsewhere, and for how many frames
 * the answer went on from the one before tell right from wrong, by the map's calibration.
 * Of fewer than `frames` frames, what is said of a single one has to hold as well: `places` of
 * tatvpr_map_look at the frame's k and tokens say it.
 *
 * Frames of a camera that stands say one thing over and over: five of them are no five frames. Where
 * descriptors are given, a frame that shows what the last one that counted showed, taken about
 * where that was, does not count: no evidence is gathered of it, none is forgotten, the answer
 * stands, and odometry adds up until a frame counts. It only tells where about the answer the camera
 * stands: the place for which the path and this frame speak most together.
 *
 * Nothing is allocated, nothing is global: the caller owns a tatvpr_track and its memory, 12 bytes
 * and a bit a place, 20 with metres and 24 with turns, and room for a descriptor. One stream of
 * frames a track, one thread at a time. Sums are of float32 in one order, so that the bytes are the
 * same on every machine.
 *
 *     tatvpr_map_view view = {.size = sizeof(view)};
 *     tatvpr_track track = {.size = sizeof(track)};
 *     tatvpr_map_look(&map, NULL, k, tokens, &view);
 *     tatvpr_track_init(&track, 5, map.places, 1, memory, tatvpr_track_bytes(map.places, 1));
 *     tatvpr_track_remember(&track, room, map.dim);
 *     for each frame: tatvpr_places_search(&view.places, ... asked.scores ...);
 *                     tatvpr_track_step(&track, &view.places, &step, &found);
 */
#ifndef TATVPR_TRACK_H
#define TATVPR_TRACK_H

#include "tatvpr.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Prices, in leads: how far a frame's best score exceeds its mean one, which differs from model to
 * model and between kinds of map. */
#define TATVPR_TRACK_STEP 0.03f  /* one place along the order */
#define TATVPR_TRACK_REVERSE 0.3f /* going the other way */
#define TATVPR_TRACK_METRE 0.05f /* a metre between a path and the odometry */
#define TATVPR_TRACK_RADIAN 0.2f /* a radian between them */
#define TATVPR_TRACK_JUMP 1.0f   /* a jump to anywhere */
#define TATVPR_TRACK_STEADY 20u  /* longer than this an answer that goes on grows no surer */
#define TATVPR_TRACK_MOST_FRAMES 1000u

/* A frame counts where it is further from the last one that counted (one less the cosine of their
 * descriptors) than so much of how far it is from the place that it is most like, */
#define TATVPR_TRACK_NEARER 0.5f
/* or than so much of how far it is from places on the mean, at k = 1 and all tokens: divided by the
 * root of k times tokens, because what a descriptor owes to noise grows as they fall, */
#define TATVPR_TRACK_ALIKE 0.08f
/* or where odometry says that the camera moved so much of how far places there are apart. */
#define TATVPR_TRACK_SPACE 0.5f

/* What a track takes of odometry. */
#define TATVPR_TRACK_WITHOUT 0
#define TATVPR_TRACK_METRES 1
#define TATVPR_TRACK_TURNS 2 /* metres and turns */

typedef enum tatvpr_track_state {
    TATVPR_TRACK_UNJUDGED = 0, /* the map does not say when an answer is right */
    TATVPR_TRACK_LOST = 1,     /* nothing was accepted in the last `frames` frames that counted, or the
                                * path broke */
    TATVPR_TRACK_FOUND = 2,    /* accepted, after being lost */
    TATVPR_TRACK_MOVED = 3,    /* going on from an accepted answer, at another place */
    TATVPR_TRACK_HERE = 4      /* going on, at the same place; of a frame that does not count, about it */
} tatvpr_track_state;

typedef struct tatvpr_track {
    uint32_t size;   /* sizeof(tatvpr_track) */
    uint32_t frames; /* over how many frames evidence is gathered, from 1: a frame by itself */
    uint64_t room;   /* places that the tables have room for */
    float *evidence; /* [2, room] of paths ahead along their drive, then of those back */
    float *still;    /* [room] */
    float *along;    /* [room] metres along the drive; null: without odometry */
    float *spread;   /* [room]; null likewise */
    uint32_t *begins; /* [room / 32]: bit i of word w: place 32 w + i begins a drive */
    uint64_t known;  /* places that the tables hold */
    uint64_t place;  /* the last answer */
    uint32_t seen;   /* frames that evidence rests on, at most `frames`; 0: none yet */
    uint32_t steady; /* frames that the answer has gone on for, at most TATVPR_TRACK_STEADY */
    uint32_t since;  /* frames since one was accepted */
    uint32_t held;   /* 1: not lost */
    float lead;      /* of the last frame that counted and showed something */
    float most;      /* of the evidence */
    float *turned;   /* [room] radians that the drive has turned since its first place; null: without
                      * turns. Older callers' structures end before it: these have none */
    float *last;     /* [last_size] descriptor of the last frame that counted; null: every frame
                      * counts. Here, too, older callers' structures end */
    uint32_t last_size;
    uint32_t counted; /* 1: the last frame counted */
    float last_k, last_tokens; /* that `last` was made with; 0: it says nothing, the next frame counts */
    float owed_m, owed_rad; /* odometry since the path moved on; NaN: not known */
    uint32_t swapped; /* 1: the next frame that cannot be compared, because it was described at another
                       * k or tokens, counts: since one counted, another did not, or one was dark */
    uint32_t rested;  /* `seen` when the last frame counted that showed something */
} tatvpr_track;

/* What a frame says. */
typedef struct tatvpr_step {
    uint32_t size;       /* sizeof(tatvpr_step) */
    uint32_t band;       /* that was searched; its calibration says what is elsewhere */
    const float *scores; /* [all places] (tatvpr_search.scores; -infinity: left out), searched
                          * without `near`; null: the frame shows nothing */
    const tatvpr_sequence *sequence; /* of the band; null: nothing is judged, as where it was
                          * learned with another number of frames than the track's */
    float moved_m;       /* metres since the last frame, forwards or backwards; NaN: not known */
    uint32_t reserved;   /* zero */
    double near[3];      /* where radius_m is above 0: answers lie within so many metres of it */
    double radius_m;
    float turned_rad;    /* counter-clockwise since the last frame; NaN: not known. Heeded beside
                          * moved_m by a track with turns; older callers' structures end before it */
    uint32_t reserved2;  /* zero */
    const float *descriptor; /* [places.dim] of the frame; null: it counts. Older callers' structures
                              * end before it */
    float k, tokens;     /* that it was made with; 0: all */
} tatvpr_step;

/* What a step found. */
typedef struct tatvpr_tracked {
    uint32_t size;      /* sizeof(tatvpr_tracked) */
    uint32_t state;     /* tatvpr_track_state */
    uint64_t place;     /* means something where seen is not 0 */
    uint32_t seen;      /* frames that it rests on; 0: there is no answer */
    uint32_t steady;
    float evidence;     /* of the place; where the frame does not count, of the path's */
    float margin;       /* evidence less the most elsewhere; NaN where that is not known */
    float still;        /* its mean score without motion */
    float still_margin; /* likewise */
    float confidence;   /* how probable it is that the place is right, 0..1; else NaN */
    int32_t accepted;   /* 1 yes, 0 no, -1 the map does not say */
    double pose[7];     /* of the place: x y z qx qy qz qw; NaN: unknown */
} tatvpr_tracked;

/* Memory for a track of so many places; `odometry`: TATVPR_TRACK_WITHOUT, _METRES or _TURNS. */
TATVPR_API size_t tatvpr_track_bytes(uint64_t places, int32_t odometry);

/* Takes `memory`, at a multiple of 4, for the tables, and begins anew. TATVPR_ERR_ARENA: it is less
 * than tatvpr_track_bytes(places, odometry). TATVPR_ERR_ABI: the caller's structure is older than what
 * is asked for. TATVPR_ERR_ARGUMENT: `frames` is not 1 to TATVPR_TRACK_MOST_FRAMES, there are no
 * places, or `odometry` is none of the three. */
TATVPR_API tatvpr_status tatvpr_track_init(tatvpr_track *track, uint32_t frames, uint64_t places,
                                           int32_t odometry, void *memory, size_t bytes);

/* Goes on in `memory` that has room for `places`, which may not overlap what it has; that is then
 * the caller's again. TATVPR_ERR_ARGUMENT: it holds more places. */
TATVPR_API tatvpr_status tatvpr_track_move(tatvpr_track *track, uint64_t places, void *memory,
                                           size_t bytes);

/* Gives it room for a descriptor, [numbers], so that frames which say nothing new do not count, and
 * begins anew.
 * TATVPR_ERR_ABI: the caller's structure is older than this. TATVPR_ERR_ARENA: there is no room. */
TATVPR_API tatvpr_status tatvpr_track_remember(tatvpr_track *track, float *room, uint32_t numbers);

/* Forgets what was seen: where the camera was moved by other means, or places got new numbers. */
TATVPR_API tatvpr_status tatvpr_track_start(tatvpr_track *track);

/* Takes one frame. One that shows nothing, or for which every place was left out, moves the path by
 * the odometry alone, is never accepted, and takes one frame of evidence away; one that shows what was
 * seen before gives back what dark ones took, unless one of those moved on as far as counts.
 *
 * `places` may have grown at its end since the last step, as far as there is room
 * (TATVPR_ERR_ARENA, as for a descriptor). Places follow each other where they are neighbours of one
 * drive. Fewer than 8 places elsewhere are no rivals, and nothing is accepted. On any status but TATVPR_OK nothing
 * changes. TATVPR_ERR_NOT_FINITE: a score is NaN or +infinity. */
TATVPR_API tatvpr_status tatvpr_track_step(tatvpr_track *track, const tatvpr_places *places,
                                           const tatvpr_step *step, tatvpr_tracked *found);

#ifdef __cplusplus
}
#endif
#endif
