# bash completion for audioctl; printed by `audioctl completion bash`

_audioctl_words() {
    mapfile -t COMPREPLY < <(compgen -W "$*" -- "$current")
}

_audioctl_files() {
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen "$1" -- "$current")
}

# Not by compgen -W, which would expand what a name contains.
_audioctl_models() {
    local name
    while IFS= read -r name; do
        [[ $name == "$current"* ]] && COMPREPLY+=("$name")
    done < <(audioctl models --names 2>/dev/null)
}

_audioctl_runtimes() {
    _audioctl_words "$(audioctl runtime --names 2>/dev/null)"
}

_audioctl() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} verb='' place=0 index word
    COMPREPLY=()
    for ((index = 1; index < COMP_CWORD; index++)); do
        case ${COMP_WORDS[index]} in
            --consent|--emotion|--emotion-from|--format|--interval|--language|--mode|--model|--output|--output-dir|--parallel|--seed|--socket|--speed|--transcript|--translate-to|--url|--voice|-o) ((index += 1)) ;;
            -*) ;;
            *)
                word=${COMP_WORDS[index]}
                case $verb:$word in
                    :*) verb=$word ;;
                    voices:list|voices:add|voices:remove|voices:say) verb+=" $word" ;;
                    *) ((place += 1)) ;;
                esac ;;
        esac
    done
    case $verb:$previous in
        *:--socket) _audioctl_files -f; return ;;
        events:--model) _audioctl_models; return ;;
        say:-o|say:--output) _audioctl_files -f; return ;;
        say:--voice) :; return ;;
        say:--model) _audioctl_models; return ;;
        say:--language) :; return ;;
        say:--emotion) :; return ;;
        say:--emotion-from) _audioctl_files -f; return ;;
        say:--seed) :; return ;;
        say:--speed) :; return ;;
        say:--format) _audioctl_words mp3 opus aac flac wav pcm; return ;;
        say:--url) :; return ;;
        subtitles:--format) _audioctl_words srt vtt; return ;;
        subtitles:--language) :; return ;;
        subtitles:--translate-to) :; return ;;
        subtitles:--mode) _audioctl_words accurate fast; return ;;
        subtitles:--model) _audioctl_models; return ;;
        subtitles:--output) _audioctl_files -d; return ;;
        subtitles:--parallel) :; return ;;
        subtitles:--url) :; return ;;
        top:--interval) :; return ;;
        transcribe:--model) _audioctl_models; return ;;
        transcribe:--language) :; return ;;
        transcribe:--format) _audioctl_words text json verbose_json srt vtt; return ;;
        transcribe:--output-dir) _audioctl_files -d; return ;;
        transcribe:--url) :; return ;;
        voices:--url) :; return ;;
        'voices list':--url) :; return ;;
        'voices add':--consent) _audioctl_files -f; return ;;
        'voices add':--language) :; return ;;
        'voices add':--transcript) :; return ;;
        'voices add':--url) :; return ;;
        'voices remove':--url) :; return ;;
        'voices say':-o|'voices say':--output) _audioctl_files -f; return ;;
        'voices say':--model) _audioctl_models; return ;;
        'voices say':--language) :; return ;;
        'voices say':--emotion) :; return ;;
        'voices say':--emotion-from) _audioctl_files -f; return ;;
        'voices say':--seed) :; return ;;
        'voices say':--speed) :; return ;;
        'voices say':--format) _audioctl_words mp3 opus aac flac wav pcm; return ;;
        'voices say':--url) :; return ;;
    esac
    if [[ $current == -* ]]; then
        case $verb in
            '') _audioctl_words -h --help --version --socket --json ;;
            completion) _audioctl_words -h --help --socket --json ;;
            config) _audioctl_words -h --help --socket --json ;;
            doctor) _audioctl_words --network -h --help --socket --json ;;
            drain) _audioctl_words --wait -h --help --socket --json ;;
            events) _audioctl_words --model -h --help --socket --json ;;
            load) _audioctl_words --wait --no-wait -h --help --socket --json ;;
            models) _audioctl_words --names -h --help --socket --json ;;
            park) _audioctl_words --wait --no-wait -h --help --socket --json ;;
            reload) _audioctl_words -h --help --socket --json ;;
            runtime) _audioctl_words --names -h --help --socket --json ;;
            say) _audioctl_words -o --output --voice --model --language --emotion --emotion-from --seed --speed --format --url -h --help --socket --json ;;
            status) _audioctl_words --ready --watch -h --help --socket --json ;;
            subtitles) _audioctl_words --format --language --translate-to --mode --model --output --overwrite --parallel --url -h --help --socket --json ;;
            top) _audioctl_words --once --interval -h --help --socket --json ;;
            transcribe) _audioctl_words --model --language --format --output-dir --url -h --help --socket --json ;;
            undrain) _audioctl_words -h --help --socket --json ;;
            unload) _audioctl_words --force --wait --no-wait -h --help --socket --json ;;
            version) _audioctl_words -h --help --socket --json ;;
            voices) _audioctl_words --url -h --help --socket --json ;;
            'voices list') _audioctl_words --url -h --help --socket --json ;;
            'voices add') _audioctl_words --consent --language --transcript --url -h --help --socket --json ;;
            'voices remove') _audioctl_words --url -h --help --socket --json ;;
            'voices say') _audioctl_words -o --output --model --language --emotion --emotion-from --seed --speed --format --url -h --help --socket --json ;;
            why) _audioctl_words --all -h --help --socket --json ;;
        esac
        return
    fi
    case $verb:$place in
        :*) _audioctl_words completion config doctor drain events load models park reload runtime say status subtitles top transcribe undrain unload version voices why ;;
        completion:0) _audioctl_words bash zsh fish ;;
        config:0) _audioctl_words check ;;
        config:1) _audioctl_files -f ;;
        load:*) _audioctl_models ;;
        models:0) _audioctl_words list pull verify remove path ;;
        models:*) _audioctl_models ;;
        park:*) _audioctl_models ;;
        runtime:0) _audioctl_words list install verify remove ;;
        runtime:*) _audioctl_runtimes ;;
        say:0) : ;;
        subtitles:*) _audioctl_files -f ;;
        transcribe:*) _audioctl_files -f ;;
        unload:*) _audioctl_models ;;
        voices:0) _audioctl_words list add remove say ;;
        'voices add':0) : ;;
        'voices add':1) _audioctl_files -f ;;
        'voices remove':0) : ;;
        'voices say':0) : ;;
        'voices say':1) : ;;
        why:0) _audioctl_models ;;
    esac
}

complete -F _audioctl audioctl
