/**
 * The settings of a program's image: joined from flags, its entry of `builds` and `image:`, rendered, and described to tell
 * why an image is another one than in the last run.
 */
import { keyOf } from "./cache.ts";
import { checkImageValue, IMAGE_KEYS, type ImageKey, type ImageWord, type ImageWords } from "./config-image.ts";
import { KoError, KoErrors, throwAll } from "./errors.ts";
import type { GitReads, RenderedWords } from "./go-templates.ts";
import { type ContainerSettings, NO_CONTAINER_SETTINGS } from "./image-config.ts";

/** The settings of a program's image for a platform. */
export interface ProgramImage {
  readonly container: ContainerSettings;
  readonly annotations: ReadonlyMap<string, string>;
  /** The state of git that values hold. */
  readonly git: GitReads | undefined;
  /** In the order of {@link IMAGE_KEYS}. */
  readonly values: readonly ImageValue[];
}

/** A value of a setting: as it is written, and rendered. */
export interface ImageValue {
  readonly key: ImageKey;
  readonly word: ImageWord;
  readonly text: string;
  /** The names of the data that decided the text, such as `Env.HOME`. */
  readonly reads: readonly string[];
}

/** Everything is as the base has it. */
export const NO_PROGRAM_IMAGE: ProgramImage = {
  container: NO_CONTAINER_SETTINGS,
  annotations: new Map(),
  git: undefined,
  values: [],
};

/**
 * Joins settings. Pairs are joined by key; of any other setting the first level that has it counts, also with no value.
 *
 * @param levels the one that takes precedence first
 */
export function joinImageWords(levels: readonly ImageWords[]): ImageWords {
  const joined: Partial<Record<ImageKey, readonly ImageWord[]>> = {};
  for (const key of IMAGE_KEYS) {
    const found = levels.flatMap((level) => (level[key] === undefined ? [] : [level[key]]));
    const [first] = found;
    if (first === undefined) continue;
    const isPairs = found.some((words) => words.some((word) => word.key !== undefined));
    if (!isPairs) joined[key] = first;
    else
      joined[key] = [...new Map(found.toReversed().flatMap((words) => words.map((word) => [word.key, word]))).values()];
  }
  return joined;
}

/**
 * Renders settings.
 *
 * @throws {KoError} If a template cannot be rendered, or a setting cannot have its value; with all of them.
 */
export async function renderImage(
  words: ImageWords,
  render: (words: readonly ImageWord[]) => Promise<RenderedWords>,
): Promise<ProgramImage> {
  const all = IMAGE_KEYS.flatMap((key) => (words[key] ?? []).map((word) => ({ key, word })));
  if (all.length === 0) return NO_PROGRAM_IMAGE;
  const { git, reads, texts } = await render(all.map(({ word }) => word));
  const errors: KoError[] = [];
  const values = all.flatMap(({ key, word }, i): readonly ImageValue[] => {
    try {
      return [{ key, word, text: checkImageValue(key, texts[i] ?? "", word), reads: reads[i] ?? [] }];
    } catch (error) {
      if (!(error instanceof KoError)) throw error;
      errors.push(...(error instanceof KoErrors ? error.errors : [error]));
      return [];
    }
  });
  throwAll(errors);
  const textsOf = (key: ImageKey): readonly string[] => values.flatMap((each) => (each.key === key ? [each.text] : []));
  const pairsOf = (key: ImageKey): ReadonlyMap<string, string> =>
    new Map(values.flatMap(({ key: own, text, word }) => (own === key ? [[word.key ?? "", text]] : [])));
  const container = {
    env: pairsOf("env"),
    labels: pairsOf("labels"),
    ports: textsOf("ports"),
    volumes: textsOf("volumes"),
    entrypointArgs: textsOf("entrypointArgs"),
    cmd: textsOf("cmd"),
    workdir: textsOf("workdir")[0],
    user: textsOf("user")[0],
    stopSignal: textsOf("stopSignal")[0],
  };
  return { container, annotations: pairsOf("annotations"), git, values };
}

/** The settings of an image, each under its name. Values are hashed, because they may be secret. */
export function describeContainer(
  container: ContainerSettings,
  annotations: ReadonlyMap<string, string>,
): Readonly<Record<string, string>> {
  const { cmd, entrypointArgs, env, labels, ports, stopSignal, user, volumes, workdir } = container;
  const lists = {
    env: [...env],
    labels: [...labels],
    annotations: [...annotations],
    ports,
    volumes,
    cmd,
    entrypointArgs,
  };
  const texts = { workdir, user, stopSignal };
  return Object.fromEntries([
    ...Object.entries(lists).flatMap(([name, list]) => (list.length === 0 ? [] : [[name, keyOf(list)] as const])),
    ...Object.entries(texts).flatMap(([name, text]) => (text === undefined ? [] : [[name, keyOf(text)] as const])),
  ]);
}

/** Says which setting differs from that of the last image; undefined if none does. */
export function explainContainer(
  before: Readonly<Record<string, unknown>>,
  now: Readonly<Record<string, string>>,
): string | undefined {
  for (const name of new Set([...Object.keys(now), ...Object.keys(before)])) {
    if (before[name] === now[name]) continue;
    const change =
      before[name] === undefined ? "is set now" : now[name] === undefined ? "is not set any more" : "changed";
    return `${name} of the image ${change}`;
  }
  return undefined;
}
