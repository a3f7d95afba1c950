/* One valid argument for each parameter of the public C functions, under the parameter's own name;
 * test_null_arguments.py writes calls with them. ready() makes them anew. */
#include "../../runtime/core/example/example.h"
#include "tatvpr_governor.h"
#include "tatvpr_selftest.h"
#include "tatvpr_track.h"

enum { PIXELS = 32, COUNT = 2, NUMBERS = 4096, FRAMES = 5 };

static char words[4][4096]; /* weights, map, its journal */
static int32_t counter, index_, count = 1, threads = 1, odometry = TATVPR_TRACK_TURNS;
static int32_t n = COUNT, safe, preset, reason;
static uint32_t kind = 1, version = TATVPR_GOVERNOR_VERSION, frames = FRAMES;
static uint32_t numbers = NUMBERS;
static tatvpr_status status;
static const float k = 0.2f, tokens = 1.0f;
static const double limit = 1000.0, now_s = 1.0, queries = 1.0, busy_ms = 1.0, search_ms = 1.0;
static const tatvpr_governor_preference preference = TATVPR_GOVERNOR_TURBO;

static const tatvpr_program *program;
static tatvpr_model *model, model_held;
static tatvpr_model_info *info, info_held;
static tatvpr_arena arena;
static const char *kernels, *tag_held;
static void *blob, *prepared, *room, *memory, *larger, *bytes, *journal_file;
static size_t blob_bytes, prepared_bytes, room_bytes, size, journal_size, memory_bytes, tag_size;
static tatvpr_map *map, map_held;
static tatvpr_journal *journal, journal_held;
static tatvpr_map_view *view, view_held;
static tatvpr_places *places;
static tatvpr_frame *frame, frame_held;
static tatvpr_options *options, options_held;
static tatvpr_search *asked, asked_held;
static tatvpr_match *matches, matches_held;
static tatvpr_track *track, track_held;
static tatvpr_step *step, step_held;
static tatvpr_tracked *tracked, tracked_held;
static tatvpr_governor *g, g_held;
static tatvpr_governor_tuning *tuning, tuning_held;
static tatvpr_governor_inputs *inputs, inputs_held;
static tatvpr_governor_figures *figures, figures_held;
static tatvpr_level *points, points_held[COUNT];
static tatvpr_selftest_job *job, job_held;
static const tatvpr_golden golden = {0, 0, 0, NULL, NULL};
static const char **tag;
static size_t *tag_bytes, *room_needed;
static int32_t *found;
static float *descriptor, *structure;
static float descriptor_held[NUMBERS], scores[NUMBERS];
static uint64_t place, added_place, track_places, more_places;

static void ready(void) {
    static uint8_t pixels[3 * PIXELS * PIXELS];
    for (size_t i = 0; i < sizeof(pixels); i++) {
        pixels[i] = (uint8_t)(i * i);
    }
    blob = read_file(words[0], &blob_bytes);
    program = tatvpr_program_get();
    for (int32_t i = 0; !tatvpr_kernels_usable(kernels); i++) {
        kernels = tatvpr_kernels_name(i); /* those that a null stands for */
    }
    prepared_bytes = tatvpr_prepared_bytes(program, kernels);
    prepared = aligned(prepared_bytes);
    model = &model_held;
    check("model", tatvpr_model_init(model, program, blob, blob_bytes, kernels, prepared,
                                     prepared_bytes));
    info_held = (tatvpr_model_info){.size = sizeof(info_held)};
    info = &info_held;
    check("info", tatvpr_model_get_info(program, info));
    arena = make_arena(model);
    frame_held = (tatvpr_frame){.size = sizeof(frame_held), .format = TATVPR_RGB888};
    frame_held.width = frame_held.height = PIXELS;
    frame_held.planes[0] = pixels;
    frame_held.strides[0] = 3 * PIXELS;
    frame = &frame_held;
    options_held = (tatvpr_options){.size = sizeof(options_held), .k = k, .tokens = tokens};
    options = &options_held;
    descriptor = descriptor_held;
    check("frame", tatvpr_describe(model, arena, frame, options, descriptor));
    structure = scores;

    bytes = read_file(words[1], &size);
    map_held = (tatvpr_map){.size = sizeof(map_held)};
    map = &map_held;
    check("map", tatvpr_map_open(map, bytes, size, model));
    journal_file = read_file(words[2], &journal_size);
    check("journal", tatvpr_journal_bytes(map, journal_file, journal_size, &room_bytes));
    room_needed = &room_bytes;
    room = aligned(room_bytes);
    journal_held = (tatvpr_journal){.size = sizeof(journal_held)};
    journal = &journal_held;
    check("journal", tatvpr_journal_open(journal, map, journal_file, journal_size, room, room_bytes));
    added_place = map->places;
    tag = &tag_held;
    tag_bytes = &tag_size;
    view_held = (tatvpr_map_view){.size = sizeof(view_held)};
    view = &view_held;
    check("view", tatvpr_map_look(map, journal, k, tokens, view));
    places = &view->places;
    asked_held = (tatvpr_search){.size = sizeof(asked_held), .k = k, .tokens = tokens};
    asked_held.scores = scores;
    asked = &asked_held;
    matches_held = (tatvpr_match){.size = sizeof(matches_held)};
    matches = &matches_held;
    found = &counter;
    check("search", tatvpr_places_search(places, model, descriptor, asked, matches, 1, found));

    track_places = map->places + journal->places;
    more_places = 2 * track_places;
    memory_bytes = tatvpr_track_bytes(more_places, odometry);
    memory = aligned(memory_bytes);
    larger = aligned(memory_bytes);
    track_held = (tatvpr_track){.size = sizeof(track_held)};
    track = &track_held;
    check("track", tatvpr_track_init(track, frames, track_places, odometry, memory, memory_bytes));
    step_held = (tatvpr_step){.size = sizeof(step_held), .scores = scores};
    step = &step_held;
    tracked_held = (tatvpr_tracked){.size = sizeof(tracked_held)};
    tracked = &tracked_held;

    points = points_held;
    points[0] = (tatvpr_level){0.2, 1.0, 10.0, 11.0, 100.0, 0.5};
    points[1] = (tatvpr_level){1.0, 1.0, 20.0, 22.0, 200.0, 0.9};
    g = &g_held;
    check("governor", (tatvpr_status)-tatvpr_governor_init(g, points, n, TATVPR_BUDGET_POWER, limit,
                                                           safe, preset, NULL));
    tuning = &tuning_held;
    tatvpr_governor_defaults(tuning);
    inputs_held = (tatvpr_governor_inputs){.now_s = now_s, .power_mw = 500.0, .queries = 1.0};
    inputs = &inputs_held;
    figures = &figures_held;
    job_held = (tatvpr_selftest_job){model, &golden, arena, options, descriptor, NULL, NULL};
    job = &job_held;
}
