/**
 * Renders the templates in the words that go gets. Their data is read only if a template needs it: the settings of go once
 * in a run, the state of git once for each folder.
 */
import { once, Pace } from "./async.ts";
import type { Word } from "./config-file.ts";
import { KoError, KoErrors, throwAll } from "./errors.ts";
import { readGitInfo } from "./git.ts";
import { type GoOptions, readGoEnv } from "./go.ts";
import type { TemplateData, TemplateRoot } from "./template-data.ts";
import type { Template } from "./template-parse.ts";

export interface TemplateRendererOptions extends GoOptions {
  /** `SOURCE_DATE_EPOCH`, in seconds since 1970. @default the time of the first template */
  readonly epoch: number | undefined;
  /** All words of the configuration, with the folders whose git state their templates see. */
  readonly all: readonly FolderWords[];
}

export interface FolderWords {
  /** Absolute. */
  readonly dir: string;
  readonly words: readonly Word[];
}

export interface RenderWordsOptions {
  /** Absolute: the folder in which git runs. */
  readonly dir: string;
  /** The environment of `go build`. */
  readonly env: Readonly<Record<string, string>>;
}

export interface RenderedWords {
  readonly texts: readonly string[];
  /** By word: the names of the data that decided its text, such as `Env.HOME`. */
  readonly reads: readonly (readonly string[])[];
  /** True if a text depends on the time of the run. */
  readonly hasTime: boolean;
  /** The state of git that texts depend on; undefined if they do not. */
  readonly git: GitReads | undefined;
}

/** The state of git that the flags of a program depend on. */
export interface GitReads {
  /** Absolute. */
  readonly dir: string;
  /** True if it includes changes that are not committed. */
  readonly hasChanges: boolean;
}

/** The fields of `.Git` that tell a changed work tree from a clean one. */
const CHANGE_FIELDS = ["IsDirty", "IsClean", "TreeState"] as const;

type Parser = typeof import("./template-parse.ts");

/** One for each run. The template language is loaded if a word has an action. */
export class TemplateRenderer {
  readonly #options: TemplateRendererOptions;
  readonly #git = new Map<string, ReturnType<typeof readGitInfo>>();
  readonly #warnings = new Set<string>();
  #goEnv: ReturnType<typeof readGoEnv> | undefined;
  #now: number | undefined;

  constructor(options: TemplateRendererOptions) {
    this.#options = options;
  }

  /** Warnings about the data that templates have read so far. */
  get warnings(): readonly string[] {
    return [...this.#warnings];
  }

  /**
   * Renders each word by itself, as the original does.
   *
   * @throws {KoError} If a template is not valid or cannot be rendered; {@link KoErrors} with all failures.
   */
  async render(words: readonly Word[], options: RenderWordsOptions): Promise<RenderedWords> {
    if (!words.some(isTemplate)) {
      return { texts: words.map(({ value }) => value), reads: words.map(() => []), hasTime: false, git: undefined };
    }
    const [parser, { render }] = await Promise.all([import("./template-parse.ts"), import("./template.ts")]);
    const errors: KoError[] = [];
    const templates = words.map((word) => collect(errors, () => parse(word, parser)));
    const data = await this.#dataFor(templates, options);
    let hasTime = false;
    const fields = new Set<string>();
    const texts: string[] = [];
    const reads: (readonly string[])[] = [];
    const pace = new Pace(this.#options.host.signal);
    for (const [i, template] of templates.entries()) {
      // One template is bounded, but there may be many.
      if (pace.isDue) await pace.turn();
      const rendered = template && collect(errors, () => render(template, data));
      const names = rendered?.reads.map(([name]) => name) ?? [];
      for (const name of names) if (name.startsWith("Git.")) fields.add(name.slice(4));
      if (names.some((name) => name === "Date" || name === "Timestamp") && this.#options.epoch === undefined) {
        hasTime = true;
        this.#warnings.add(describeTime(words[i]));
      }
      texts.push(rendered?.text ?? "");
      reads.push(names);
    }
    throwAll(errors);
    const hasChanges = CHANGE_FIELDS.some((field) => fields.has(field));
    return { texts, reads, hasTime, git: fields.size === 0 ? undefined : { dir: options.dir, hasChanges } };
  }

  /** Warns of templates that are not valid, and that another setting replaces. */
  async warnOfMistakes(words: readonly Word[]): Promise<void> {
    if (!words.some(isTemplate)) return;
    const parser = await import("./template-parse.ts");
    const errors: KoError[] = [];
    for (const word of words) collect(errors, () => parse(word, parser));
    for (const error of errors)
      this.#warnings.add(`${error.message.replace(/^Cannot use /, "")}; --ldflags replaces it`);
  }

  async #dataFor(
    templates: readonly (Template | undefined)[],
    { dir, env }: RenderWordsOptions,
  ): Promise<TemplateData> {
    const reads = (root: TemplateRoot): boolean => templates.some((template) => template?.reads.has(root));
    const [goEnv, git] = await Promise.all([
      reads("GoEnv") ? this.#readGoEnv() : undefined,
      reads("Git") ? this.#readGit(dir) : undefined,
    ]);
    const seconds = this.#seconds();
    return {
      Env: env,
      ...(goEnv === undefined ? {} : { GoEnv: goEnv }),
      ...(git === undefined ? {} : { Git: git.info }),
      Date: new Date(seconds * 1000).toISOString().replace(".000Z", "Z"),
      Timestamp: seconds,
    };
  }

  /** As in the original: in the working directory, with the environment of ko. */
  #readGoEnv(): ReturnType<typeof readGoEnv> {
    const { host } = this.#options;
    return (this.#goEnv ??= readGoEnv({ ...this.#options, cwd: host.cwd, env: host.env }));
  }

  /** Reads all that templates of the configuration may read, so that git is asked once. */
  #readGit(dir: string): ReturnType<typeof readGitInfo> {
    return once(this.#git, dir, async () => {
      const { all, host } = this.#options;
      const parser = await import("./template-parse.ts");
      const fields = new Set<string>();
      let isWhole = false;
      for (const word of all.flatMap((each) => (each.dir === dir ? each.words : []))) {
        const read = collect([], () => parse(word, parser))?.reads.get("Git");
        if (read === "all") isWhole = true;
        else for (const field of read ?? []) fields.add(field);
      }
      const report = await readGitInfo(dir, { host, env: host.env, fields: isWhole ? "all" : fields });
      for (const warning of report.warnings) this.#warnings.add(warning);
      return report;
    });
  }

  #seconds(): number {
    const { epoch, host } = this.#options;
    return epoch ?? (this.#now ??= Math.floor(host.now().getTime() / 1000));
  }
}

/** Reports whether a word has an action; other words need no parser. */
function isTemplate({ value }: Word): boolean {
  return value.includes("{{");
}

function parse({ file, marks, setting, value }: Word, { parseTemplate }: Parser): Template {
  return parseTemplate(value, { setting, file, ...(marks === undefined ? {} : { marks }) });
}

/** Runs work; its failures are collected, and the result is undefined then. */
function collect<T>(errors: KoError[], work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof KoError)) throw error;
    errors.push(...(error instanceof KoErrors ? error.errors : [error]));
    return undefined;
  }
}

function describeTime(word: Word | undefined): string {
  return (
    `${word?.setting} at ${word?.where} uses the time of the build, so each run makes another image; ` +
    "to have the same one, type: export SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)"
  );
}
