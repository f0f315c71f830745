/**
 * What `--explain` tells: a line for each image, whether it was reused or rebuilt, and the first input that changed.
 *
 * Knows nothing of how that is found out.
 */
import { relative } from "node:path";
import { printable } from "./errors.ts";

/** One image of one platform. */
export type Explanation = {
  readonly importPath: string;
  /** `linux/arm/v7` */
  readonly platform: string;
} & (
  | { readonly state: "reused" }
  | {
      readonly state: "rebuilt";
      /** The first input that changed, if it is a file: absolute. */
      readonly file?: string | undefined;
      /** What is with that file, or why else it was rebuilt: `changed`, `first build here`. */
      readonly reason: string;
    }
);

/**
 * Lines without line ends, in the order of the images.
 *
 * @param cwd absolute; a file is shown relative to it where that is shorter
 */
export function formatExplanations(explanations: readonly Explanation[], cwd: string): readonly string[] {
  return explanations.map((explanation) => {
    const { importPath, platform } = explanation;
    const line = `${importPath} (${platform}): ${describe(explanation, cwd)}`;
    // A file name may hold anything.
    return printable(line.replaceAll(/[\t\r\n]/g, " "));
  });
}

function describe(explanation: Explanation, cwd: string): string {
  if (explanation.state === "reused") return "reused, nothing changed";
  const { file, reason } = explanation;
  return `rebuilt, ${file === undefined ? "" : `${shorten(file, cwd)} `}${reason}`;
}

function shorten(file: string, cwd: string): string {
  const near = relative(cwd, file);
  return near !== "" && near.length < file.length ? near : file;
}
