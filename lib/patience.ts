/**
 * Waiting for somebody who may be silent for long and yet be at work: a daemon says nothing while it unpacks a large
 * image. So silence alone ends nothing; silence of somebody who does not answer a question either does.
 */

export interface PatienceOptions {
  /** Milliseconds of silence after which the question is asked, and asked again. */
  readonly silence: number;
  /** Milliseconds of silence after which it is over, whatever the answers were. */
  readonly limit: number;
  /** The question; rejected when there was no answer. It has its own deadline. */
  ask(): Promise<unknown>;
  /** Called at most once. @param why in words, such as "it has been silent for 60 s and answers no ping" */
  giveUp(why: string): void;
}

/** Begins to wait at once; {@link Patience.end} must be called. */
export class Patience {
  readonly #options: PatienceOptions;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #last: number = performance.now();
  #isOver = false;

  constructor(options: PatienceOptions) {
    this.#options = options;
    this.#arm();
  }

  /** Something happened: the silence is over. */
  moved(): void {
    this.#last = performance.now();
  }

  end(): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
  }

  get #silent(): number {
    return performance.now() - this.#last;
  }

  #arm(): void {
    const { silence } = this.#options;
    // Still silent after an answer: not asked again at once.
    const rest = this.#silent >= silence ? silence : silence - this.#silent;
    this.#timer = setTimeout(() => void this.#look(), rest);
  }

  async #look(): Promise<void> {
    const { silence, limit } = this.#options;
    const isOver = (): boolean => this.#isOver;
    const seconds = Math.round(this.#silent / 1000);
    if (this.#silent >= limit) {
      this.#giveUp(`it has been silent for ${seconds} s`);
    } else if (this.#silent >= silence) {
      const answers = await this.#options.ask().then(
        () => true,
        () => false,
      );
      // It may have moved meanwhile.
      if (!answers && this.#silent >= silence) this.#giveUp(`it has been silent for ${seconds} s and answers no ping`);
    }
    if (!isOver()) this.#arm();
  }

  #giveUp(why: string): void {
    if (this.#isOver) return;
    this.end();
    this.#options.giveUp(why);
  }
}
