/**
 * `ko config`: prints the settings of programs as text or JSON, or the schema of `.ko.yaml`.
 */
import { IMAGE_KEYS } from "./config-image.ts";
import type { Host } from "./host.ts";
import type { Log } from "./log.ts";
import { formatSchema } from "./settings-schema.ts";
import {
  type DefaultSettings,
  type From,
  type PlatformSettings,
  type ProgramSettings,
  readSettings,
  type Settings,
  type SettingsRequest,
} from "./settings.ts";

/** A name, a value and its origin. A row without a name continues the one before. */
type Row = readonly [name: string, value: string, from: string];

/** The most columns that values of several rows are padded to. */
const MAX_VALUE = 48;

/**
 * Runs `ko config`.
 *
 * @returns the text for stdout
 * @throws {KoError} As {@link readSettings}.
 */
export async function runConfig(
  request: SettingsRequest,
  context: { readonly host: Host; readonly log: Log },
): Promise<string> {
  const [word, another] = request.args;
  if (word === "schema" && another === undefined) return formatSchema();
  const settings = await readSettings(request, context);
  return request.flags.json ? `${JSON.stringify(settings, null, 2)}\n` : formatSettings(settings);
}

/** Formats settings: those of each program, or without programs those that hold for all. */
export function formatSettings(settings: Settings): string {
  if (settings.programs.length === 0) return formatGroup("Settings of all programs", listGlobal(settings));
  return settings.programs.map((program) => formatGroup(program.importPath, listProgram(program, settings))).join("\n");
}

function formatGroup(title: string, rows: readonly Row[]): string {
  const left = Math.max(...rows.map(([name]) => name.length)) + 2;
  const widths = rows.map(([, value]) => Bun.stringWidth(value)).filter((width) => width <= MAX_VALUE);
  const middle = Math.max(0, ...widths);
  const lines = rows.map(([name, value, from]) => {
    const start = `  ${name.padEnd(left)}${value}`;
    if (from === "") return start;
    return `${start}${" ".repeat(Math.max(0, middle - Bun.stringWidth(value)))}  # ${from}`;
  });
  return [title, ...lines, ""].join("\n");
}

function listGlobal(settings: Settings): readonly Row[] {
  const overrides = settings.baseImageOverrides.map(({ from, importPath, value }): Row => {
    return ["", `${value} for ${importPath}`, from];
  });
  const [base = ["base", "", ""], ...rest] = listDefaults(settings.defaults);
  return [
    row("file", { ...settings.file, value: settings.file.value ?? "none" }),
    ...listRun(settings),
    base,
    ...overrides,
    ...rest,
    ...nameFirst(
      "builds",
      settings.entries.map(({ from, program, value }): Row => ["", `${value}: ${program}`, from]),
    ),
  ];
}

function listProgram(program: ProgramSettings, settings: Settings): readonly Row[] {
  const { entry } = program;
  return [row("image", program.image), ...listRun(settings), ...optional("builds", entry), ...listDefaults(program)];
}

/** The settings that all programs of a run share. */
function listRun(settings: Settings): readonly Row[] {
  const { annotations, compression, created, debugger: debug, destinations, go, labels, sbom, tags, user } = settings;
  const registries = settings.registries.map(({ from, host, value }): Row => ["", `${host}: ${value}`, from]);
  return [
    row("tags", { value: tags.value.join(", ") || "none", from: tags.from }),
    ...nameFirst("destination", destinations.map(unnamed)),
    row("sbom", sbom),
    row("compression", compression),
    row("reuse", settings.reuse),
    ...optional("user", user),
    ...nameFirst("labels", listPairs(labels)),
    ...nameFirst("annotations", listPairs(annotations)),
    ...optional(
      "created",
      created === null ? null : { value: new Date(created.value * 1000).toISOString(), from: created.from },
    ),
    ...optional("debugger", debug),
    ...nameFirst("registries", registries),
    row("go", go),
  ];
}

function listDefaults({ base, builds, platforms }: DefaultSettings): readonly Row[] {
  const shown = platforms.value.join(", ") || "that of the target";
  const isExample = builds.some((build) => build.isExample);
  const [first] = builds;
  // Most programs are compiled alike for all platforms, but for the variables that name the platform.
  const alike = first !== undefined && builds.every((build) => listBuild(build) === listBuild(first));
  const note = isExample && first !== undefined ? `; the lines below are for ${first.platform}` : "";
  return [
    row("base", base),
    ["platforms", shown, `${platforms.from}${note}`],
    ...(alike && first !== undefined
      ? listWords(first, "", builds.length > 1)
      : builds.flatMap((build) => listWords(build, ` (${build.platform})`, false))),
  ];
}

/** A text that is equal for platforms with the same rows. */
function listBuild(build: PlatformSettings): string {
  return JSON.stringify(listWords(build, "", true));
}

/** @param options.isShared leaves out the variables that differ by platform */
function listWords(build: PlatformSettings, suffix: string, isShared: boolean): readonly Row[] {
  const { args, binary, capabilities, env, flags, image, ldflags } = build;
  const variables = env
    .filter(({ from, name }) => !(isShared && from === "ko" && name !== "CGO_ENABLED"))
    .map(({ from, name, value }): Row => ["", value === null ? `${name} (not shown)` : `${name}=${value}`, from]);
  return [
    ...nameFirst(`env${suffix}`, variables),
    ...nameFirst(`flags${suffix}`, flags.map(showWord)),
    ...nameFirst(`ldflags${suffix}`, ldflags.map(showWord)),
    ...optional(`capabilities${suffix}`, capabilities),
    ...optional(`binary${suffix}`, binary),
    ...IMAGE_KEYS.flatMap((key) => {
      return nameFirst(`image.${key}${suffix}`, image.filter((each) => each.key === key).map(showWord));
    }),
    [`go build${suffix}`, args === null ? "(not shown: a word is hidden)" : args.map(quote).join(" "), ""],
  ];
}

function showWord({ from, hidden, value }: PlatformSettings["flags"][number]): Row {
  return ["", quote(value), hidden ? `${from}, not shown as it is used` : from];
}

function row(name: string, { from, value }: From<string>): Row {
  return [name, value, from];
}

function unnamed(setting: From<string>): Row {
  return row("", setting);
}

function optional(name: string, setting: From<string> | null): readonly Row[] {
  return setting === null ? [] : [row(name, setting)];
}

function listPairs({ from, value }: From<readonly string[]>): readonly Row[] {
  return value.map((pair): Row => ["", pair, from]);
}

/** Gives the first row the name. */
function nameFirst(name: string, rows: readonly Row[]): readonly Row[] {
  return rows.map(([, value, from], i): Row => [i === 0 ? name : "", value, from]);
}

/** The word as one types it in a shell. */
function quote(word: string): string {
  if (/^[\w@%+=:,./-]+$/.test(word)) return word;
  if (word.includes("'") && !/["$`\\!]/.test(word)) return `"${word}"`;
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
